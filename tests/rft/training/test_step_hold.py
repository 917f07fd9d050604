"""With hold, no group becomes too stale as long as all come in time, whatever the order in which they come."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from producers.conductor.pacing import Pace, Pacer
from rft.training.step_hold import HoldPace, StepHold

PACES = st.builds(
    Pace,
    steps=st.integers(1, 12),
    groups_per_step=st.integers(1, 4),
    sync_interval=st.integers(1, 3),
    max_staleness=st.integers(0, 4),
)


def hold_of(groups_per_step: int, sync_interval: int, max_staleness: int, limit_s: float = math.inf) -> StepHold:
    return StepHold(HoldPace(groups_per_step, sync_interval, max_staleness, limit_s))


class HoldingTrainer:
    """Takes steps as the real trainer does: the stalest groups first, and none while the hold says so."""

    def __init__(self, pace: Pace, *, holds: bool) -> None:
        self.pace = pace
        self.hold = hold_of(pace.groups_per_step, pace.sync_interval, pace.max_staleness) if holds else None
        self.pacer = Pacer(pace)
        self.step = self.version = self.version_step = 0
        self.in_flight: dict[int, int] = {}
        """Version with which the rollouts of a task began."""
        self.here: dict[int, int] = {}
        self.finished: set[int] = set()
        self.stale: list[int] = []

    def issue(self) -> None:
        for number, min_version in self.pacer.take_due():
            self.in_flight[number] = max(min_version, self.version)
            if self.hold:
                self.hold.saw_task(number, min_version)

    def arrive(self, number: int, *, filtered: bool) -> None:
        version = self.in_flight.pop(number)
        if filtered:
            self.retire([number])
        else:
            self.here[number] = version

    def retire(self, numbers: list[int]) -> None:
        self.finished.update(numbers)
        self.pacer.saw_retired(numbers)

    def take_step(self) -> bool:
        late = [number for number, written in self.here.items() if self.version - written > self.pace.max_staleness]
        self.stale += late
        for number in late:
            del self.here[number]
        self.retire(late)
        if len(self.here) < self.pace.groups_per_step:
            return False
        if self.hold:
            steps_left = self.pace.sync_interval - (self.step - self.version_step) - 1
            here = self.here.keys() | self.finished
            if self.hold.awaited(self.version, steps_left, self.here.values(), here.__contains__, 0.0):
                return False
        used = sorted(self.here, key=lambda number: (self.here[number], number))[: self.pace.groups_per_step]
        for number in used:
            del self.here[number]
        self.step += 1
        if self.step - self.version_step >= self.pace.sync_interval:
            self.version, self.version_step = self.version + 1, self.step
        self.retire(used)
        self.pacer.saw_version(self.version, self.version_step)
        self.pacer.saw_step(self.step)
        return True


def run(pace: Pace, data: st.DataObject, *, holds: bool) -> HoldingTrainer:
    trainer, filtered = HoldingTrainer(pace, holds=holds), 8
    while trainer.step < pace.steps:
        trainer.issue()
        if trainer.take_step():
            continue
        assert trainer.in_flight, "the trainer waits, and nothing can come"
        number = data.draw(st.sampled_from(sorted(trainer.in_flight)))
        drop = filtered > 0 and data.draw(st.booleans())
        filtered -= drop
        trainer.arrive(number, filtered=drop)
    return trainer


@settings(max_examples=300, deadline=None)
@given(PACES, st.data())
def test_nothing_becomes_too_stale_and_the_run_ends_whatever_the_order_of_arrival(pace, data) -> None:
    assert run(pace, data, holds=True).stale == []


def test_without_a_hold_the_last_to_come_is_too_stale() -> None:
    trainer = HoldingTrainer(Pace(steps=4, groups_per_step=1, sync_interval=1, max_staleness=1), holds=False)
    for number in (1, 2, 3):
        trainer.issue()
        trainer.arrive(number, filtered=False)
        assert trainer.take_step()
    trainer.arrive(0, filtered=False)
    trainer.take_step()
    assert trainer.stale == [0]


def test_a_step_waits_only_for_groups_that_would_be_too_stale_after_it() -> None:
    hold = hold_of(2, 1, 2)
    for number in range(6):
        hold.saw_task(number, 0)
    # Two steps are left before version 3, and they can train the four groups that are behind.
    assert hold.awaited(0, 0, [0, 0], {4, 5}.__contains__, 0.0) == []
    hold.saw_task(6, 1)
    hold.saw_task(7, 1)
    # The step would take 6 and 7, which have time until version 3, and leave four to the one step before.
    assert hold.awaited(1, 0, [1, 1], {4, 5, 6, 7}.__contains__, 0.0) == [0, 1, 2, 3]
    assert hold.awaited(1, 0, [0, 0, 1, 1], {0, 1, 4, 5, 6, 7}.__contains__, 0.0) == []


def test_groups_that_no_conductor_issued_are_not_waited_for() -> None:
    hold = hold_of(1, 1, 0)
    hold.saw_task(-1, 0)
    assert hold.awaited(0, 0, [0], lambda _: False, 0.0) == []


def test_after_its_limit_a_step_is_taken_and_none_waits_for_the_same_groups_again() -> None:
    hold = hold_of(1, 1, 2, limit_s=10.0)
    for number in range(3):
        hold.saw_task(number, 0)
    hold.saw_task(3, 1)
    come = {2, 3}.__contains__
    assert hold.awaited(1, 0, [1], come, 100.0) == [0, 1]
    assert hold.awaited(1, 0, [1], come, 109.0) == [0, 1]
    assert hold.awaited(1, 0, [1], come, 110.0) == []
    assert hold.awaited(1, 0, [1], come, 111.0) == []
    assert hold.awaited(2, 0, [2], come, 112.0) == []
