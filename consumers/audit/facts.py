"""What the audit keeps of each event. Pure: events in, facts out, in any order."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from rft.errors import DecodeError
from rft.log.dead_letter_index import resolution
from rft.log.events import Event
from rft.stream.fence import Fence
from schemas.events import EventRef, Experience, ScoredExperience, TrainingStep, Waiting

Place = tuple[int, int]
"""(partition, offset)"""


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
    origin: Place
    release_id: str
    split: str
    cause: str | None
    """Why it was filtered; None when it is for training."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of ``experiences``."""

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


@dataclass(slots=True)
class Facts:
    """All that the accounting needs of a log."""

    published: dict[Place, Published] = field(default_factory=dict)
    scored: dict[Place, Scored] = field(default_factory=dict)
    letters: dict[Place, Letter] = field(default_factory=dict)
    """By the place in ``experiences`` that they came from."""
    other_letters: int = 0
    """Dead letters of other topics."""
    steps: dict[Place, Step] = field(default_factory=dict)
    unreadable_steps: list[Place] = field(default_factory=list)
    unreadable_ready: int = 0
    """Someone's garbage in ``ready``: the trainer buries it."""
    waiting: dict[tuple[int, bytes | None], frozenset[Place]] = field(default_factory=dict)
    """Experiences that wait for external rewards, by partition and group; committed as read, but not resolved."""
    begins: dict[str, dict[int, int]] = field(default_factory=dict)
    """First offset that is kept of each topic's partitions: what is before it cannot be checked."""
    committed: Mapping[int, int] | None = None
    """Next offset of ``experiences`` that the processors have yet to resolve, by partition; None if not known."""

    def kept(self, entity: str, place: Place) -> bool:
        """Whether the log still reaches back to that place."""
        partition, offset = place
        return offset >= self.begins.get(entity, {}).get(partition, 0)


class Collector:
    """Fills :class:`Facts` from events of ``experiences``, ``ready``, ``dlq``, ``steps`` and ``waiting``."""

    def __init__(self, experiences_topic: str) -> None:
        """``experiences_topic`` is its full name, as dead letters give it."""
        self.facts = Facts()
        self._topic = experiences_topic
        self._fence = Fence()
        self._takers = {
            "experiences": self._experience,
            "ready": self._ready,
            "dlq": self._letter,
            "steps": self._step,
            "waiting": self._waiting,
        }

    def feed(self, event: Event) -> None:
        """Take in one event."""
        self._takers[event.entity](event)

    def _experience(self, event: Event) -> None:
        try:
            record = event.record(Experience)
        except DecodeError:
            found = Published(None, None)
        else:
            found = Published(sys.intern(record.experience_id), sys.intern(record.group_id))
        self.facts.published[_place(event)] = found

    def _ready(self, event: Event) -> None:
        try:
            record = event.record(ScoredExperience)
        except DecodeError:
            self.facts.unreadable_ready += 1
            return
        experience = record.experience
        self.facts.scored[_place(event)] = Scored(
            experience_id=sys.intern(experience.experience_id),
            group_id=sys.intern(experience.group_id),
            number=experience.number,
            origin=(record.origin_partition, record.origin_offset),
            release_id=sys.intern(record.release_id),
            split=sys.intern(experience.split),
            cause=None if record.verdict == "train" else sys.intern(record.cause or "unknown"),
        )

    def _letter(self, event: Event) -> None:
        if resolution(event.headers) is not None:
            return
        # The newest failure of a letter that was sent again comes last, and that is where it died this time.
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in event.headers}
        partition, offset = headers.get("rft.error.partition", ""), headers.get("rft.error.offset", "")
        if headers.get("rft.error.topic") != self._topic or not (partition.isdigit() and offset.isdigit()):
            self.facts.other_letters += 1
            return
        letter = Letter(headers.get("ce_id"), headers.get("rft.error.class", "unknown"))
        self.facts.letters[int(partition), int(offset)] = letter

    def _waiting(self, event: Event) -> None:
        self.facts.waiting.pop((event.partition, event.key), None)
        if event.value is not None:
            members = event.record(Waiting).members
            places = frozenset((event.partition, member.offset) for member in members if member.offset >= 0)
            self.facts.waiting[event.partition, event.key] = places

    def _step(self, event: Event) -> None:
        try:
            record = event.record(TrainingStep)
        except DecodeError:
            self.facts.unreadable_steps.append(_place(event))
            return
        if self._fence.counts(record):
            self.facts.steps[_place(event)] = Step(
                record.model, record.kind, record.step, record.digest, record.trained, record.dropped
            )


def _place(event: Event) -> Place:
    return event.partition, event.offset
