"""Bounds how many train tasks are in flight, and says with which weights they must be rolled out (pure).

One bound makes every mode: a task is issued only while
``issued - retired < (max_staleness + 1) * sync_interval * groups_per_step``. Near the end of a run the
bound shrinks to the groups that the remaining steps can still use, so nothing useless is issued.

Each task also asks for a lowest weight version, so that it is not staler than allowed *when it is trained*.
Each step has ``groups_per_step`` slots for groups. The version that a step starts from is known in advance, because
versions come every ``sync_interval`` steps. A new task is for the first free slot and must be rolled out with at least
``version_of_that_step - max_staleness``. Slots are counted by version, because groups may be dropped: the replacement
of a dropped group gets its slot, and never waits for a version that cannot come before that slot is filled.

With ``processor.external.pacing = "free"``, a group that has all its samples and waits for external rewards holds no
slot: the bound is on the others. It holds one again from its release to its retirement, so the bound may be exceeded
for a while, and nothing is issued meanwhile.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rft.config import Config
from rft.tasks.ranges import RangeSet


@dataclass(frozen=True, slots=True)
class Pace:
    """The numbers of a run that decide its pace."""

    steps: int
    groups_per_step: int
    sync_interval: int
    max_staleness: int
    trains: bool = True
    """False when nothing is trained: then a task is retired when it is scored, and steps only count tasks."""
    free_waiting: int = 0
    """Groups that may wait for external rewards without a slot; all others hold theirs."""

    @classmethod
    def from_config(cls, config: Config) -> Pace:
        """Read the pace from a configuration."""
        trainer, mode = config.trainer, config.run.mode
        steps = 0 if mode == "eval" else trainer.steps
        fresh, external = config.new_groups_per_step, config.processor.external
        trains = mode in ("online", "train")
        free_waiting = external.max_waiting if external.frees_slots and trains else 0
        return cls(steps, fresh, trainer.sync_interval, trainer.max_staleness, trains, free_waiting)

    @property
    def tasks(self) -> int:
        """Train tasks of the whole run, if none is dropped."""
        return self.steps * self.groups_per_step

    @property
    def bound(self) -> int:
        """Groups that may be issued and not yet retired."""
        return (self.max_staleness + 1) * self.sync_interval * self.groups_per_step


class Pacer:
    """Knows which train tasks are issued, retired and due. Events may come repeatedly and in any order."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._issued = RangeSet()
        self._retired = RangeSet()
        self._min_versions: dict[int, int] = {}
        """Minimal version by number, of the tasks in flight."""
        self._waiting: set[int] = set()
        """Groups that wait for external rewards, as far as they are not retired."""
        self._placed: Counter[int] = Counter()
        """Number of tasks in flight by minimal version, without those that wait."""
        self._steps_done = 0
        self._version = 0
        self._version_step = 0
        """The step after which ``_version`` became the newest."""

    @property
    def issued(self) -> int:
        """Train tasks issued so far."""
        return len(self._issued)

    @property
    def retired(self) -> int:
        """Train tasks retired so far."""
        return len(self._retired)

    @property
    def in_flight(self) -> int:
        """Number of train tasks issued and not retired."""
        return len(self._min_versions)

    @property
    def waiting(self) -> int:
        """Number of these that wait for external rewards without a slot."""
        return min(self.in_flight - self._placed.total(), self._pace.free_waiting)

    def oldest_in_flight(self, count: int) -> list[int]:
        """Return the lowest numbers of train tasks that are issued and not retired, at most ``count``."""
        return heapq.nsmallest(count, self._min_versions)

    @property
    def steps_done(self) -> int:
        """Gradient steps that the trainer has taken."""
        return self._steps_done

    @property
    def version(self) -> int:
        """Newest weight version known."""
        return self._version

    def saw_task(self, number: int, min_version: int) -> None:
        """Note that a train task is on the log."""
        if self._issued.add(number) and number not in self._retired:
            self._min_versions[number] = min_version
            if number not in self._waiting:
                self._placed[min_version] += 1

    def saw_retired(self, numbers: Iterable[int]) -> None:
        """Note that the trainer has trained or dropped these."""
        for number in numbers:
            if number >= 0 and self._retired.add(number):
                min_version = self._min_versions.pop(number, None)
                if min_version is not None and number not in self._waiting:
                    self._displace(min_version)
                self._waiting.discard(number)

    def saw_waiting(self, number: int, waits: bool) -> None:
        """Note that a group has all its samples and waits for external rewards, or that it has been released."""
        if number < 0 or number in self._retired or waits == (number in self._waiting):
            return
        min_version = self._min_versions.get(number)
        if waits:
            self._waiting.add(number)
            if min_version is not None:
                self._displace(min_version)
        else:
            self._waiting.discard(number)
            if min_version is not None:
                self._placed[min_version] += 1

    def saw_version(self, version: int, step: int) -> None:
        """Note that training goes on from ``version`` after ``step`` steps."""
        self._steps_done = max(self._steps_done, step)
        if version > self._version:
            self._version, self._version_step = version, step
        elif version == self._version:
            self._version_step = min(self._version_step, step)

    def saw_step(self, step: int) -> None:
        """Note that the trainer has taken ``step`` steps."""
        self._steps_done = max(self._steps_done, step)

    def take_due(self) -> list[tuple[int, int]]:
        """Return the train tasks to issue now, as (number, minimal version), and mark them as issued."""
        done = self._steps_done * self._pace.groups_per_step if self._pace.trains else self.retired
        limit = min(self._pace.bound, self._pace.tasks - done)
        due = []
        while self.in_flight - self.waiting < limit:
            number = self._issued.first_missing()
            if number in self._retired:  # the log has lost the task, but the trainer has retired it
                self._issued.add(number)
                continue
            min_version = max(self._version, self._first_free_version() - self._pace.max_staleness)
            self.saw_task(number, min_version)
            due.append((number, min_version))
        return due

    def _displace(self, min_version: int) -> None:
        self._placed.subtract({min_version: 1})
        self._placed += Counter()  # removes versions without a task

    def _first_free_version(self) -> int:
        """Return the version of the first coming step that has a slot which no task in flight can take.

        A task may take the slots of its minimal version and later ones, and takes the earliest of them.
        """
        version = self._version
        placed = sum(count for minimal, count in self._placed.items() if minimal <= version)
        while placed >= (slots := self._slots(version)):
            version += 1
            placed += self._placed.get(version, 0) - slots
            if version > self._version + self._pace.max_staleness + 1:
                break  # no slot within the bound: tasks of an earlier run with other settings
        return version

    def _slots(self, version: int) -> int:
        """Return how many groups the coming steps will train from ``version``."""
        announced = self._version_step + (version - self._version) * self._pace.sync_interval
        first = max(announced, self._steps_done)
        last = min(announced + self._pace.sync_interval, self._pace.steps)
        return max(0, last - first) * self._pace.groups_per_step
