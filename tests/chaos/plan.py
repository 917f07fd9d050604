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
SESSION_S = 6.0
"""The consumer groups' session timeout: a member that is silent for longer loses its partitions."""
PER_SCENARIO = 25


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
            faults=tuple(made[start : start + per_scenario]),
        )
        for number, start in enumerate(range(0, faults, per_scenario))
    ]


def _duration(kind: str, chance: random.Random) -> float:
    """Draw the seconds until the fault ends: until SIGCONT, the restart, or the restored network."""
    if kind.startswith("SIGSTOP") or kind == "network drop":
        return SESSION_S + chance.uniform(1, 3)
    if kind == "network delay":
        return chance.uniform(4, 8)
    if kind in ("network cut", "kill -9 broker"):
        return chance.uniform(0, 3)
    return 0.0
