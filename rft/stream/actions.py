"""What goes into the pipeline and what it asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.events import ScoredExperience, Waiting
from schemas.framing import Headers

Stage = Literal["decode", "validate", "score", "reward", "process"]
"""Where an event failed; travels as ``rft.error.stage``. ``reward``: its external rewards did not come in time;
``process`` is a fault of ours, found in no other stage."""

Source = Literal["experiences", "rewards"]
"""The topics that are read."""


@dataclass(frozen=True, slots=True)
class Received:
    """One event of the ``experiences`` or ``rewards`` topic, as the broker gave it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0
    """When it was published, Unix time; 0 when not known."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Write one released group to ``ready``; once every member is acknowledged, ``resolves`` are done with."""

    partition: int
    group_id: str
    members: tuple[ScoredExperience, ...]
    resolves: tuple[int, ...]
    """Offsets, in ``partition``, of the events that the members came from."""
    size_bytes: int
    """Size of those events on the wire."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Write the event as it came to ``dlq``, with the cause."""

    partition: int
    offset: int
    stage: Stage
    error: Exception
    final: bool
    """True: its outcome is the dead letter alone. False: its group's release speaks for it too; it is done with
    when both are published."""
    source: Source = "experiences"


@dataclass(frozen=True, slots=True)
class Resolve:
    """Nothing to publish: the event is a repetition, came after its group had been released, or nobody asked for it."""

    partition: int
    offset: int
    cause: Literal["duplicate", "late", "unasked"]
    source: Source = "experiences"


@dataclass(frozen=True, slots=True)
class Remember:
    """Write what is known of a waiting group to ``waiting``; then the events that it tells of are done with."""

    partition: int
    group_id: str
    value: bytes | None
    """An encoded ``Waiting``; None to forget the group."""
    experiences: tuple[int, ...] = ()
    """Offsets of those events in ``experiences``."""
    rewards: tuple[int, ...] = ()
    """And in ``rewards``."""


@dataclass(frozen=True, slots=True)
class Release:
    """A group waits no longer: fetch its experiences, conclude and publish it, then write ``marker`` to ``waiting``."""

    partition: int
    waiting: Waiting
    marker: bytes
    """An encoded ``Waiting`` that says that the group has been released."""
    experiences: tuple[int, ...]
    """Offsets in ``experiences`` of events that are done with when the group is published."""
    rewards: tuple[int, ...]
    """And in ``rewards``."""
    letters: tuple[int, ...]
    """Offsets in ``experiences`` of members that become dead letters for want of rewards."""


Action = Publish | DeadLetter | Resolve | Remember | Release
