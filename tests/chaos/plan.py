"""Draws the faults, their targets and their order from a seed. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

ROLES = ("conductor", "explorer", "processor", "trainer")
NETWORK = ("cut", "delay", "drop")
KINDS = (
    *(f"kill -9 {role}" for role in ROLES),
    *(f"SIGSTOP {role}" for role in ROLES),
    "kill -9 broker",
    "1 % poison",
    "full disk",
    *(f"network {mode}" for mode in NETWORK),
)
"""Injected on any cluster."""
NEIGHBORS = ("aborted transactions", "foreign codecs", "junk on every topic", "skewed clocks")
"""What other users of the cluster do."""
TWO_DOWN_S = {f"two nodes down {seconds} s": float(seconds) for seconds in (5, 30, 150)}
"""How long two of three nodes are down: without a majority, the cluster accepts no write."""
ALL_DOWN_S = {f"outage of {seconds} s": float(seconds) for seconds in (5, 30, 150, 600)}
"""How long all three nodes are down."""
OUTAGES_S = TWO_DOWN_S | ALL_DOWN_S
LONG_OUTAGES = tuple(kind for kind, lasts_s in OUTAGES_S.items() if lasts_s > 60)
"""Injected only if asked for: they take minutes."""
CLUSTER = (
    "kill -9 leader",
    "kill -9 controller",
    "preferred election",
    "unclean election",
    "rolling restart",
    "lagging follower",
    *OUTAGES_S,
)
"""Injected on a cluster of three nodes."""
ENDINGS = ("partitions added", "topic recreated")
"""After these a run cannot go on: it must end soon, with an error that names the topic. Each has a
deployment of its own."""
ALL_KINDS = (*KINDS, *CLUSTER, *NEIGHBORS, *ENDINGS)
SESSION_S = 6.0
"""The consumer groups' session timeout: a member that is silent for longer loses its partitions."""
PER_SCENARIO = 25
BROKER_SESSION_S = 4.0
"""A node that is silent for longer is fenced, and its leaderships move."""


def default_kinds(nodes: int) -> tuple[str, ...]:
    """Return the kinds of fault for a cluster of ``nodes`` nodes, if the command names none."""
    if nodes < 3:
        return KINDS
    return tuple(kind for kind in ALL_KINDS if kind not in LONG_OUTAGES)


class NoEffectError(AssertionError):
    """A fault was injected, but had no effect."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``index`` picks one of several processes of a role; ``seed`` draws the details."""

    number: int
    kind: str
    lasts_s: float
    index: int
    seed: int

    @property
    def target(self) -> str:
        """The last word of its kind: a role, ``broker``, or how the network fails."""
        return self.kind.rsplit(" ", 1)[-1]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One deployment and the faults that it must survive."""

    number: int
    explorers: int
    processors: int
    max_staleness: int
    sync_interval: int
    faults: tuple[Fault, ...] = field(default=())

    @property
    def longest_s(self) -> float:
        """The longest duration of its faults."""
        return max((fault.lasts_s for fault in self.faults), default=0.0)


def make_plan(
    seed: int, faults: int, kinds: tuple[str, ...] = KINDS, per_scenario: int = PER_SCENARIO
) -> list[Scenario]:
    """Draw ``faults`` faults, every kind equally often (plus or minus one), at most ``per_scenario`` in a scenario."""
    chance = random.Random(seed)
    drawn: list[str] = []
    while len(drawn) < faults:
        drawn += chance.sample(kinds, len(kinds))
    made = [
        Fault(number, kind, round(_duration(kind, chance), 2), chance.randrange(1 << 16), chance.randrange(1 << 32))
        for number, kind in enumerate(drawn[:faults])
    ]
    return [
        Scenario(
            number,
            explorers=chance.randint(1, 2),
            processors=chance.randint(1, 2),
            max_staleness=chance.choice((0, 1, 1, 3)),
            sync_interval=chance.choice((1, 1, 2)),
            faults=tuple(faults_of_one),
        )
        for number, faults_of_one in enumerate(_split(made, per_scenario))
    ]


def _split(faults: list[Fault], most: int) -> list[list[Fault]]:
    """Split the faults into scenarios of at most ``most``. A fault that ends its run has its own: no log is judged."""
    survived = [fault for fault in faults if fault.kind not in ENDINGS]
    chunks = [survived[start : start + most] for start in range(0, len(survived), most)]
    return chunks + [[fault] for fault in faults if fault.kind in ENDINGS]


def _duration(kind: str, chance: random.Random) -> float:
    """Draw the seconds until the fault ends: until SIGCONT, the restart, the restored network, or the abort."""
    if kind.startswith("SIGSTOP") or kind == "network drop":
        return SESSION_S + chance.uniform(1, 3)
    if kind == "network delay":
        return chance.uniform(4, 8)
    if kind in ("network cut", "kill -9 broker"):
        return chance.uniform(0, 3)
    if kind in ("kill -9 leader", "kill -9 controller"):
        return chance.uniform(0, 2 * BROKER_SESSION_S)
    if kind == "aborted transactions":
        return chance.uniform(2, 8)
    return OUTAGES_S.get(kind, 0.0)
