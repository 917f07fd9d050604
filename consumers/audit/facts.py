"""Defines what the audit keeps of each event, and collects it. Pure: events in, facts out, in any order."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from rft.errors import DecodeError
from rft.log.coordinates import LogPosition, Offsets
from rft.log.dead_letter_index import read_dead_letter, resolution
from rft.log.events import Event
from rft.stream.fence import Fence
from schemas.events import EventRef, Experience, ScoredExperience, TrainingStep, Waiting


@dataclass(frozen=True, slots=True)
class Published:
    """An event of ``experiences``; without ids if it cannot be decoded."""

    experience_id: str | None
    group_id: str | None


@dataclass(frozen=True, slots=True)
class Scored:
    """An event of ``ready``."""

    experience_id: str
    group_id: str
    number: int
    origin: LogPosition
    """In ``experiences``."""
    release_id: str
    split: str
    cause: str | None
    """Why it was filtered; None when it is for training."""


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """An event of ``experiences`` that became a dead letter."""

    experience_id: str | None
    """As its headers say."""
    error: str


@dataclass(frozen=True, slots=True)
class Step:
    """A TrainingStep that counts."""

    model: str
    kind: str
    number: int
    digest: str
    trained: tuple[EventRef, ...]
    dropped: tuple[EventRef, ...]

    @property
    def refs(self) -> tuple[EventRef, ...]:
        """Everything that it names."""
        return (*self.trained, *self.dropped)


@dataclass(slots=True)
class Facts:
    """Everything that the accounting needs of a log."""

    published: dict[LogPosition, Published] = field(default_factory=dict)
    scored: dict[LogPosition, Scored] = field(default_factory=dict)
    dead_lettered: dict[LogPosition, DeadLettered] = field(default_factory=dict)
    """By the position in ``experiences`` that they came from."""
    steps: dict[LogPosition, Step] = field(default_factory=dict)
    unreadable_steps: list[LogPosition] = field(default_factory=list)
    unreadable_ready: int = 0
    """Events of ``ready`` that cannot be decoded: the trainer publishes them as dead letters."""
    waiting: dict[tuple[int, bytes | None], frozenset[LogPosition]] = field(default_factory=dict)
    """Experiences that wait for external rewards, by partition and group. They are committed, but not resolved."""
    begins: dict[str, Offsets] = field(default_factory=dict)
    """First offset that the log still holds, by topic and partition. Nothing before it can be checked."""
    committed: Offsets | None = None
    """Next offset of ``experiences`` that the processors have yet to resolve; None if not known."""

    def holds(self, entity: str, position: LogPosition) -> bool:
        """Return whether the log still reaches back to that position."""
        return position.offset >= self.begins.get(entity, {}).get(position.partition, 0)


class Collector:
    """Fills :class:`Facts` from events of ``experiences``, ``ready``, ``dlq``, ``steps`` and ``waiting``."""

    def __init__(self, experiences_topic: str) -> None:
        """``experiences_topic`` is its full name, as dead letters give it."""
        self.facts = Facts()
        self._experiences_topic = experiences_topic
        self._fence = Fence()
        self._collect = {
            "experiences": self._experience,
            "ready": self._ready,
            "dlq": self._dead_letter,
            "steps": self._step,
            "waiting": self._waiting,
        }

    def feed(self, event: Event) -> None:
        """Take in one event."""
        self._collect[event.entity](event)

    def _experience(self, event: Event) -> None:
        try:
            record = event.record(Experience)
        except DecodeError:
            found = Published(None, None)
        else:
            found = Published(sys.intern(record.experience_id), sys.intern(record.group_id))
        self.facts.published[event.position] = found

    def _ready(self, event: Event) -> None:
        try:
            record = event.record(ScoredExperience)
        except DecodeError:
            self.facts.unreadable_ready += 1
            return
        experience = record.experience
        self.facts.scored[event.position] = Scored(
            experience_id=sys.intern(experience.experience_id),
            group_id=sys.intern(experience.group_id),
            number=experience.number,
            origin=LogPosition(record.origin_partition, record.origin_offset),
            release_id=sys.intern(record.release_id),
            split=sys.intern(experience.split),
            cause=None if record.verdict == "train" else sys.intern(record.cause or "unknown"),
        )

    def _dead_letter(self, event: Event) -> None:
        if resolution(event.headers) is not None:
            return
        letter = read_dead_letter(event)
        if letter.topic != self._experiences_topic or letter.partition < 0 or letter.offset < 0:
            return
        claimed_id = next((value for name, value in reversed(event.headers) if name == "ce_id"), None)
        self.facts.dead_lettered[LogPosition(letter.partition, letter.offset)] = DeadLettered(
            None if claimed_id is None else claimed_id.decode("utf-8", "replace"), letter.error or "unknown"
        )

    def _waiting(self, event: Event) -> None:
        self.facts.waiting.pop((event.partition, event.key), None)
        if event.value is not None:
            samples = event.record(Waiting).members
            positions = frozenset(LogPosition(event.partition, s.offset) for s in samples if s.offset >= 0)
            self.facts.waiting[event.partition, event.key] = positions

    def _step(self, event: Event) -> None:
        try:
            record = event.record(TrainingStep)
        except DecodeError:
            self.facts.unreadable_steps.append(event.position)
            return
        if self._fence.counts(record):
            self.facts.steps[event.position] = Step(
                record.model, record.kind, record.step, record.digest, record.trained, record.dropped
            )
