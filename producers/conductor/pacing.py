"""How many train tasks may be out, and with which weights they must be rolled out (pure).

One bound makes every mode: a task is issued only while
``issued - retired < (max_staleness + 1) * sync_interval * groups_per_step``. Near the end of a run the
bound shrinks to the groups that the remaining steps can still use, so nothing useless is issued.

Each task also asks for a lowest weight version, so that it is not staler than allowed *when it is trained*.
Steps are seats: each takes ``groups_per_step`` groups, and the version that a step starts from is known in
advance because versions come every ``sync_interval`` steps. A new task is for the first free seat, and must be
rolled out with at least ``version_of_that_step - max_staleness``. Counting seats by version (not just tasks)
is what keeps a run alive when groups are dropped: the replacement of a dropped group takes its seat, and
never waits for a version that cannot come before that seat is filled.
"""

from __future__ import annotations

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

    @classmethod
    def of(cls, config: Config) -> Pace:
        trainer, mode = config.trainer, config.run.mode
        steps = 0 if mode == "eval" else trainer.steps
        fresh = config.new_groups_per_step
        return cls(steps, fresh, trainer.sync_interval, trainer.max_staleness, mode in ("online", "train"))

    @property
    def tasks(self) -> int:
        """Train tasks of the whole run, if none is dropped."""
        return self.steps * self.groups_per_step

    @property
    def bound(self) -> int:
        """Groups that may be issued and not yet retired."""
        return (self.max_staleness + 1) * self.sync_interval * self.groups_per_step


class Pacer:
    """Which train tasks are issued, retired and due. Everything may be told twice and in any order."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._issued = RangeSet()
        self._retired = RangeSet()
        self._waiting_for: dict[int, int] = {}
        """Minimal version by number, of tasks issued and not retired."""
        self._waiting: Counter[int] = Counter()
        """How many of them by minimal version."""
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
        """Train tasks issued and not retired."""
        return len(self._waiting_for)

    @property
    def steps_done(self) -> int:
        return self._steps_done

    @property
    def version(self) -> int:
        """Newest weight version known."""
        return self._version

    def saw_task(self, number: int, min_version: int) -> None:
        """A train task is in the log."""
        if self._issued.add(number) and number not in self._retired:
            self._waiting_for[number] = min_version
            self._waiting[min_version] += 1

    def saw_retired(self, numbers: Iterable[int]) -> None:
        """The trainer needs these no more: trained or dropped."""
        for number in numbers:
            if number >= 0 and self._retired.add(number):
                min_version = self._waiting_for.pop(number, None)
                if min_version is not None:
                    self._waiting.subtract({min_version: 1})
                    self._waiting += Counter()  # forgets versions that none waits for

    def saw_version(self, version: int, step: int) -> None:
        """``version`` is what training goes on from after ``step`` steps."""
        self._steps_done = max(self._steps_done, step)
        if version > self._version:
            self._version, self._version_step = version, step
        elif version == self._version:
            self._version_step = min(self._version_step, step)

    def saw_step(self, step: int) -> None:
        """The trainer has taken ``step`` steps."""
        self._steps_done = max(self._steps_done, step)

    def due(self) -> list[tuple[int, int]]:
        """Train tasks to issue now, as (number, minimal version), and marks them as issued."""
        done = self._steps_done * self._pace.groups_per_step if self._pace.trains else self.retired
        limit = min(self._pace.bound, self._pace.tasks - done)
        orders = []
        while self.in_flight < limit:
            number = self._issued.first_missing()
            if number in self._retired:  # its task was lost from the log, but the trainer is done with it
                self._issued.add(number)
                continue
            min_version = max(self._version, self._first_free_version() - self._pace.max_staleness)
            self.saw_task(number, min_version)
            orders.append((number, min_version))
        return orders

    def _first_free_version(self) -> int:
        """Version of the first step to come that has a seat which no task in flight can take.

        Tasks take the earliest seats that they may; a task may take the seats of its minimal version and later.
        """
        version = self._version
        seated = sum(count for minimal, count in self._waiting.items() if minimal <= version)
        while seated >= (seats := self._seats(version)):
            version += 1
            seated += self._waiting.get(version, 0) - seats
            if version > self._version + self._pace.max_staleness + 1:
                break  # no seat within the bound: tasks of an earlier run with other settings
        return version

    def _seats(self, version: int) -> int:
        """Groups that the steps to come will train from ``version``."""
        announced = self._version_step + (version - self._version) * self._pace.sync_interval
        first = max(announced, self._steps_done)
        last = min(announced + self._pace.sync_interval, self._pace.steps)
        return max(0, last - first) * self._pace.groups_per_step
