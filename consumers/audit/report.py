"""Defines an audit's report: two balances, the problems, and the names of duplicate, waiting and spare events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One contradiction in the log. ``kind`` is one of the keys of :data:`KINDS`."""

    kind: str
    experience_id: str | None
    text: str
    entity: str | None = None
    partition: int | None = None
    offset: int | None = None
    model: str | None = None
    step: int | None = None


KINDS: Mapping[str, str] = {
    "lost": "published and read, but neither scored nor a dead letter",
    "never_published": "scored, but not (any more) in `experiences` where `ready` says it came from",
    "letter_of_nothing": "a dead letter of an event that is not in `experiences`",
    "foreign_event": "a step names an event that is not in `ready`, or not the one that is at that offset",
    "not_for_training": "trained, although filtered or held out",
    "trained_twice": "trained more than once in the surviving lineage, and not as a further use",
    "step_missing": "the lineage of the weights has a gap",
    "step_contradicted": "one step recorded twice, and differently",
    "unreadable": "an event of `steps` that cannot be decoded",
}


@dataclass(frozen=True, slots=True)
class EventName:
    """Names an event of ``experiences`` by id and position."""

    experience_id: str | None
    partition: int
    offset: int


@dataclass(slots=True)
class PublishedBalance:
    """published (+ deleted) = scored + filtered + dead-lettered + waiting + duplicates."""

    published: int = 0
    """Events of ``experiences``."""
    deleted: int = 0
    """Ids that were scored, and whose events retention has since deleted."""
    scored: int = 0
    """Distinct ids in ``ready`` that are for training or evaluation."""
    filtered: Counter[str] = field(default_factory=Counter)
    """Distinct ids by cause; ``late``: they came after their group had been released; ``spare``: so did they,
    and their group did not need them (``rollout.spare``)."""
    dead_lettered: Counter[str] = field(default_factory=Counter)
    """Events by the error's class."""
    waiting: list[EventName] = field(default_factory=list)
    """Events whose group is not released yet."""
    spare: list[EventName] = field(default_factory=list)
    """Events that are ``filtered`` as ``spare``."""
    duplicates: list[EventName] = field(default_factory=list)
    """Further events of an id that is already counted."""

    @property
    def accounted(self) -> int:
        """The sum that published (+ deleted) must equal."""
        resolved = self.scored + self.filtered.total() + self.dead_lettered.total()
        return resolved + len(self.waiting) + len(self.duplicates)

    @property
    def balanced(self) -> bool:
        return self.published + self.deleted == self.accounted


@dataclass(slots=True)
class TrainedBalance:
    """scored (+ deleted) = trained + dropped + evaluated + buffered, for one model."""

    model: str
    steps: int = 0
    scored: int = 0
    deleted: int = 0
    """Ids that steps name, and whose events retention has since deleted from ``ready``."""
    trained: int = 0
    """Events that the surviving lineage trained. One that was trained again without the step saying so counts twice."""
    reused: int = 0
    """Further times that it trained them, as ``buffer.reuse`` and ``buffer.mix`` allow. Not part of the balance."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Distinct ids that were never trained, by cause."""
    evaluated: int = 0
    """Held-out ids, which the trainer does not train."""
    buffered: int = 0
    """Ids that no step names yet."""

    @property
    def accounted(self) -> int:
        """The sum that scored (+ deleted) must equal."""
        return self.trained + self.dropped.total() + self.evaluated + self.buffered

    @property
    def balanced(self) -> bool:
        return self.scored + self.deleted == self.accounted


@dataclass(slots=True)
class AuditReport:
    """The outcome of an audit. ``ok`` decides the exit code."""

    source: str
    """Where the events were read from."""
    published: PublishedBalance
    trained: list[TrainedBalance]
    problems: list[Problem]
    unchecked: int = 0
    """References by steps to events that retention has deleted: they could not be checked."""
    unreadable_ready: int = 0
    """Events of ``ready`` that cannot be decoded: trainers publish them as dead letters."""
    set_aside_steps: int = 0
    """Events of ``steps`` that cannot be decoded and are dead letters: no trainer wrote them."""

    @property
    def ok(self) -> bool:
        return not self.problems and self.published.balanced and all(balance.balanced for balance in self.trained)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        published = self.published
        return {
            "ok": self.ok,
            "source": self.source,
            "published": {
                "published": published.published,
                "deleted_by_retention": published.deleted,
                "scored": published.scored,
                "filtered": dict(sorted(published.filtered.items())),
                "dead_lettered": dict(sorted(published.dead_lettered.items())),
                "waiting": len(published.waiting),
                "duplicates": len(published.duplicates),
                "balanced": published.balanced,
            },
            "trained": [
                {
                    "model": balance.model,
                    "steps": balance.steps,
                    "scored": balance.scored,
                    "deleted_by_retention": balance.deleted,
                    "trained": balance.trained,
                    "reused": balance.reused,
                    "dropped": dict(sorted(balance.dropped.items())),
                    "evaluated": balance.evaluated,
                    "buffered": balance.buffered,
                    "balanced": balance.balanced,
                }
                for balance in self.trained
            ],
            "problems": [{k: v for k, v in asdict(problem).items() if v is not None} for problem in self.problems],
            "duplicates": [asdict(named) for named in published.duplicates],
            "waiting": [asdict(named) for named in published.waiting],
            "spare": [asdict(named) for named in published.spare],
            "unchecked": self.unchecked,
            "unreadable_ready": self.unreadable_ready,
            "set_aside_steps": self.set_aside_steps,
        }
