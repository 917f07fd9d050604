"""Defines a group of samples as a trainer holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rft.training.priority import GroupFacts
from rft.training.sample import Sample, in_batch_order
from schemas.events import NOT_WRITTEN

ReleaseKey = tuple[str, str]
"""(group_id, release_id): identifies one release of a group."""


@dataclass(slots=True, eq=False)
class SampleGroup:
    """The samples of one release of a group that have arrived so far, each row of them an entry."""

    group_id: str
    release_id: str
    number: int
    """The task's number; -1 if no conductor issued it."""
    size: int
    """Number of events in the release, each a row; 0 if the group was trained, since only its trained samples are held
    then."""
    samples: dict[str, Sample] = field(default_factory=dict)
    """By experience id."""

    @property
    def key(self) -> ReleaseKey:
        """Identifies this release."""
        return self.group_id, self.release_id

    @property
    def whole(self) -> bool:
        """True when all samples have arrived."""
        return len(self.samples) >= self.size

    @property
    def trainable(self) -> list[Sample]:
        """Rows to train on, ordered by sample and row, so that the order of arrival does not matter."""
        return in_batch_order(sample for sample in self.samples.values() if not sample.filtered)

    @property
    def oldest_version(self) -> int:
        """Lowest version among the trainable samples; -1 if the policy wrote none of them."""
        return min((s.oldest_version for s in self.trainable if s.oldest_version != NOT_WRITTEN), default=NOT_WRITTEN)

    @property
    def kind(self) -> str:
        """``rollout``, ``demonstration`` or ``preference``."""
        return next(iter(self.samples.values())).kind

    @property
    def uses(self) -> int:
        """How often it was trained."""
        return max(sample.uses for sample in self.samples.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of the arrays that its samples hold."""
        return sum(held_bytes(sample) for sample in self.samples.values())

    @property
    def facts(self) -> GroupFacts:
        """The numbers that its priority is computed from."""
        trainable = self.trainable
        return GroupFacts(
            rewards=[sample.reward for sample in trainable if sample.is_last_row],
            priority=max(sample.priority for sample in self.samples.values()),
            oldest_version=self.oldest_version,
            number=self.number,
        )


PriorityOf = Callable[[SampleGroup], float]
"""Returns a group's priority; higher is trained first."""


def by_processor(group: SampleGroup) -> float:
    """Return the priority that the group's events carry."""
    return group.facts.priority


def held_bytes(sample: Sample) -> int:
    """Return the bytes of a sample's arrays; 0 if only a pointer is held."""
    return sample.payload.size_bytes if sample.payload is not None else 0
