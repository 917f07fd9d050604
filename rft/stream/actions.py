"""Defines what goes into the pipeline and what the pipeline asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rft.log.dead_letters import Stage
from schemas.events import ScoredExperience, Waiting
from schemas.framing import Headers

Source = Literal["experiences", "rewards"]
"""The topics that are read."""


@dataclass(frozen=True, slots=True)
class Received:
    """Holds one event of ``experiences`` or ``rewards`` as the broker delivered it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0
    """When it was published, Unix time; 0 when not known."""

    @property
    def size_bytes(self) -> int:
        """Size of the value."""
        return len(self.value or b"")


@dataclass(frozen=True, slots=True)
class Publish:
    """Write one released group to ``ready``. When every sample is acknowledged, the events in ``resolves`` are done."""

    partition: int
    group_id: str
    samples: tuple[ScoredExperience, ...]
    resolves: tuple[int, ...]
    """Offsets, in ``partition``, of the events that the samples came from."""
    size_bytes: int
    """Size of those events on the wire."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Write the event unchanged to ``dlq``, with the cause in its headers."""

    partition: int
    offset: int
    stage: Stage
    error: Exception
    final: bool
    """True: the dead letter is the event's only outcome. False: the event is also a sample of its group, and it is done
    when both the dead letter and the group are published."""
    source: Source = "experiences"


@dataclass(frozen=True, slots=True)
class Resolve:
    """Publish nothing. The event is a duplicate, came after its group's release, or belongs to nothing we know."""

    partition: int
    offset: int
    cause: Literal["duplicate", "late", "unclaimed"]
    source: Source = "experiences"


@dataclass(frozen=True, slots=True)
class SaveWaiting:
    """Write the state of a waiting group to ``waiting``. When that is acknowledged, the events in it are done."""

    partition: int
    group_id: str
    value: bytes | None
    """An encoded ``Waiting``; None deletes the group from the changelog."""
    experiences: tuple[int, ...] = ()
    """Offsets of those events in ``experiences``."""
    rewards: tuple[int, ...] = ()
    """Offsets of those events in ``rewards``."""


@dataclass(frozen=True, slots=True)
class Release:
    """Release a waiting group: fetch its experiences, publish it, then write ``marker`` to ``waiting``."""

    partition: int
    waiting: Waiting
    marker: bytes
    """An encoded ``Waiting`` that says that the group has been released."""
    experiences: tuple[int, ...]
    """Offsets in ``experiences`` of the events that are done when the group is published."""
    rewards: tuple[int, ...]
    """Offsets in ``rewards`` of the events that are done then."""
    dead_letters: tuple[int, ...]
    """Offsets in ``experiences`` of the samples that become dead letters because a required reward is missing."""


Action = Publish | DeadLetter | Resolve | SaveWaiting | Release
