"""Decides which experiences get a reward, and which of them are rewarded together. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from rft.log.coordinates import LogPosition
from rft.log.events import Event
from schemas.events import Experience


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """An experience that needs a reward, and its event."""

    event: Event
    experience: Experience

    @property
    def position(self) -> LogPosition:
        return self.event.position


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Samples that are rewarded together. They are all of one group, so of one partition."""

    samples: tuple[Received, ...]
    finished_with: tuple[LogPosition, ...] = ()
    """Further events that are finished when the unit is: failed samples of its group."""

    @property
    def partition(self) -> int:
        return self.positions[0].partition

    @property
    def positions(self) -> list[LogPosition]:
        """The events that are finished with the unit."""
        return [*(one.position for one in self.samples), *self.finished_with]


def is_counted(experience: Experience) -> bool:
    """Return whether an experience belongs to a group that waits for external rewards.

    Evaluations, demonstrations and preferences never wait. Of a sample of several rows, the last one stands for it:
    producers publish the rows in order.
    """
    return experience.split == "train" and experience.kind == "rollout" and experience.row == experience.rows - 1


def needs_reward(experience: Experience) -> bool:
    """Return whether an experience that is counted can be rewarded: its rollout did not fail."""
    return experience.finish_reason != "error"


class Intake(Protocol):
    """Makes units of experiences in the order of the log."""

    def add(self, received: Received, now: float) -> list[Unit]:
        """Take an experience in and return the units that are complete. ``now`` is in seconds and never runs back."""

    def due(self, now: float) -> list[Unit]:
        """Return the units that wait for no more experiences."""

    @property
    def waiting(self) -> int:
        """Groups that are not complete."""


class SampleIntake:
    """Rewards each sample by itself."""

    waiting = 0

    def add(self, received: Received, now: float) -> list[Unit]:
        """Return the sample as a unit."""
        if needs_reward(received.experience):
            return [Unit((received,))]
        return [Unit((), (received.position,))]

    def due(self, now: float) -> list[Unit]:
        """Return nothing: no sample waits."""
        return []


@dataclass(slots=True)
class _Group:
    since: float
    samples: dict[int, Received] = field(default_factory=dict)
    """By number of the sample."""
    others: list[LogPosition] = field(default_factory=list)
    """Events of samples that came again."""

    @property
    def complete(self) -> bool:
        sizes = next(iter(self.samples.values())).experience
        good = sum(needs_reward(one.experience) for one in self.samples.values())
        return len(self.samples) >= sizes.group_size or good >= sizes.group_size - sizes.spare

    def unit(self) -> Unit:
        """Return the samples that can be rewarded, by their numbers."""
        ordered = [self.samples[number] for number in sorted(self.samples)]
        failed = [one.position for one in ordered if not needs_reward(one.experience)]
        return Unit(tuple(one for one in ordered if needs_reward(one.experience)), (*failed, *self.others))


class GroupIntake:
    """Rewards all samples of a group together, as soon as they have come or the group's deadline has passed.

    A sample that comes after that makes a group of its own: the processor has released the group by then.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        """By id, in the order of their first experiences."""

    @property
    def waiting(self) -> int:
        """Groups that are not complete."""
        return len(self._groups)

    def add(self, received: Received, now: float) -> list[Unit]:
        """Return the experience's group if it is complete."""
        experience = received.experience
        group = self._groups.setdefault(experience.group_id, _Group(now))
        if experience.sample in group.samples:
            group.others.append(received.position)
            return []
        group.samples[experience.sample] = received
        if not group.complete:
            return []
        del self._groups[experience.group_id]
        return [group.unit()]

    def due(self, now: float) -> list[Unit]:
        """Return the groups whose deadline has passed, with the samples that have come."""
        late = []
        while self._groups and now - next(iter(self._groups.values())).since >= self._deadline_s:
            _, group = self._groups.popitem(last=False)
            late.append(group.unit())
        return late
