"""What goes into the pipeline and what it asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.events import ScoredExperience
from schemas.framing import Headers

Stage = Literal["decode", "validate", "score", "process"]
"""Where an event failed; travels as ``rft.error.stage``. ``process`` is a fault of ours, found in no other stage."""


@dataclass(frozen=True, slots=True)
class Received:
    """One event of the ``experiences`` topic, as the broker gave it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


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


@dataclass(frozen=True, slots=True)
class Resolve:
    """Nothing to publish: the event is a repetition, or came after its group had been released."""

    partition: int
    offset: int
    cause: Literal["duplicate", "late"]


Action = Publish | DeadLetter | Resolve
