"""Defines what the audit keeps of each event, and collects it. Pure: events in, facts out, in any order."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from rft.log.coordinates import LogPosition, Offsets
from rft.log.dead_letter_index import read_dead_letter, resolution
from rft.log.events import Event
from rft.log.records import CountedRejects, read_record
from rft.stream.fence import Fence
from rft.stream.waiting_changelog import WaitingChangelog
from rft.stream.waiting_samples import arrived, sample_of
from schemas.events import EventRef, Experience, ScoredExperience, TrainingStep


@dataclass(frozen=True, slots=True)
class Published:
    """An event of ``experiences``; without ids if it cannot be decoded."""

    experience_id: str | None
    group_id: str | None
    sample_id: str | None = None
    """Names the sample, which may have several rows."""
    attempt: str = ""
    """Which try of its rollout it is of; empty if its sample has one row."""
    row: int = 0
    spare: bool = False
    """Its group need not wait for all of its samples."""


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
    sample_id: str = ""
    attempt: str = ""


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
    dead_lettered_steps: set[LogPosition] = field(default_factory=set)
    """Events of ``steps`` that became dead letters: what a stranger writes there."""
    unreadable_ready: int = 0
    """Events of ``ready`` that cannot be decoded: the trainer publishes them as dead letters."""
    waiting: dict[tuple[int, bytes | None], frozenset[LogPosition]] = field(default_factory=dict)
    """Experiences that wait for external rewards, by partition and group. They are committed, but not resolved."""
    waiting_tries: dict[tuple[int, bytes | None], frozenset[tuple[str, str]]] = field(default_factory=dict)
    """Sample and try of those experiences."""
    begins: dict[str, Offsets] = field(default_factory=dict)
    """First offset that the log still holds, by topic and partition. Nothing before it can be checked."""
    committed: Offsets | None = None
    """Next offset of ``experiences`` that the processors have yet to resolve; None if not known."""

    def holds(self, entity: str, position: LogPosition) -> bool:
        """Return whether the log still reaches back to that position."""
        return position.offset >= self.begins.get(entity, {}).get(position.partition, 0)


class Collector:
    """Fills :class:`Facts` from events of ``experiences``, ``ready``, ``dlq``, ``steps`` and ``waiting``."""

    def __init__(self, experiences_topic: str, steps_topic: str = "") -> None:
        """``experiences_topic`` and ``steps_topic`` are full names, as dead letters give them."""
        self.facts = Facts()
        self._experiences_topic = experiences_topic
        self._steps_topic = steps_topic
        self._fence = Fence()
        self._rejects = CountedRejects()
        self._changelog = WaitingChangelog(self._rejects.reject)
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
        record = read_record(event, Experience, self._rejects.reject, keyed=False)
        found = Published(None, None)
        if record is not None:
            found = Published(
                sys.intern(record.experience_id),
                sys.intern(record.group_id),
                sys.intern(record.sample_id),
                sys.intern(record.attempt),
                record.row,
                record.spare > 0,
            )
        self.facts.published[event.position] = found

    def _ready(self, event: Event) -> None:
        record = read_record(event, ScoredExperience, self._rejects.reject, keyed=False)
        if record is None:
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
            sample_id=sys.intern(experience.sample_id),
            attempt=sys.intern(experience.attempt),
        )

    def _dead_letter(self, event: Event) -> None:
        if resolution(event.headers) is not None:
            return
        letter = read_dead_letter(event)
        if self._steps_topic and letter.topic == self._steps_topic:
            self.facts.dead_lettered_steps.add(LogPosition(letter.partition, letter.offset))
        if letter.topic != self._experiences_topic or letter.partition < 0 or letter.offset < 0:
            return
        claimed_id = next((value for name, value in reversed(event.headers) if name == "ce_id"), None)
        self.facts.dead_lettered[LogPosition(letter.partition, letter.offset)] = DeadLettered(
            None if claimed_id is None else claimed_id.decode("utf-8", "replace"), letter.error or "unknown"
        )

    def _waiting(self, event: Event) -> None:
        key = event.partition, event.key
        self._changelog.feed(event)
        group = self._changelog.get(key)
        if group is None:
            self.facts.waiting.pop(key, None)
            self.facts.waiting_tries.pop(key, None)
        else:
            rows = arrived(group)
            self.facts.waiting[key] = frozenset(LogPosition(event.partition, row.offset) for row in rows)
            self.facts.waiting_tries[key] = frozenset((f"{group.group_id}/{sample_of(r)}", r.attempt) for r in rows)

    def _step(self, event: Event) -> None:
        record = read_record(event, TrainingStep, self._rejects.reject, keyed=False)
        if record is None:
            self.facts.unreadable_steps.append(event.position)
            return
        if self._fence.counts(record):
            self.facts.steps[event.position] = Step(
                record.model, record.kind, record.step, record.digest, record.trained, record.dropped
            )
