"""The conductor issues as many tasks as can be trained, and each task once."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from producers.conductor.pacing import Pace, Pacer

PACES = st.builds(
    Pace,
    steps=st.integers(1, 12),
    groups_per_step=st.integers(1, 4),
    sync_interval=st.integers(1, 4),
    max_staleness=st.integers(0, 3),
)


class Trainer:
    """Trains the lowest numbers first, and drops groups on request and stale ones, as the real trainer does."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.step = self.version = 0
        self.rolled_out: dict[int, int] = {}
        self.stale: list[int] = []
        self.trained: list[int] = []

    def rolls_out(self, requests: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Roll out the tasks that the newest weights suffice for; return those that wait for newer ones."""
        for number, min_version in requests:
            if min_version <= self.version:
                self.rolled_out[number] = self.version
        return [request for request in requests if request[1] > self.version]

    def drops(self, number: int) -> None:
        del self.rolled_out[number]

    def trains(self) -> list[int] | None:
        """Take one step, if there are groups for it, and return the retired numbers."""
        stale = [n for n, v in self.rolled_out.items() if self.version - v > self.pace.max_staleness]
        for number in stale:
            self.drops(number)
        self.stale += stale
        if self.step == self.pace.steps or len(self.rolled_out) < self.pace.groups_per_step:
            return stale or None
        used = sorted(self.rolled_out)[: self.pace.groups_per_step]
        for number in used:
            self.drops(number)
        self.trained += used
        self.step += 1
        if self.step % self.pace.sync_interval == 0 or self.step == self.pace.steps:
            self.version += 1
        return used + stale


@given(PACES, st.data())
def test_a_run_ends_within_the_bound_whatever_is_dropped(pace: Pace, data: st.DataObject) -> None:
    pacer, trainer, waiting, drops = Pacer(pace), Trainer(pace), [], 20
    while trainer.step < pace.steps:
        requests = pacer.take_due()
        waiting = trainer.rolls_out(waiting + requests)
        assert pacer.issued - pacer.retired <= pace.bound
        assert pacer.in_flight <= (pace.steps - trainer.step) * pace.groups_per_step
        droppable = sorted(trainer.rolled_out)
        if drops and droppable and data.draw(st.booleans()):
            dropped = data.draw(st.lists(st.sampled_from(droppable), min_size=1, unique=True))
            drops -= 1
            for number in dropped:
                trainer.drops(number)
            pacer.saw_retired(dropped)
            continue
        retired = trainer.trains()
        assert retired is not None or requests, "nothing to train and nothing to issue: the run makes no progress"
        if retired:
            pacer.saw_retired(retired)
            pacer.saw_version(trainer.version, trainer.step)
    assert len(trainer.trained) == pace.steps * pace.groups_per_step
    assert pacer.take_due() == []


@given(PACES)
def test_nothing_gets_stale_when_groups_come_in_order(pace: Pace) -> None:
    pacer, trainer, waiting = Pacer(pace), Trainer(pace), []
    while trainer.step < pace.steps:
        waiting = trainer.rolls_out(waiting + pacer.take_due())
        pacer.saw_retired(trainer.trains() or [])
        pacer.saw_version(trainer.version, trainer.step)
    assert trainer.stale == []
    assert pacer.issued == pace.steps * pace.groups_per_step


@given(PACES)
def test_the_bound_is_used_in_full(pace: Pace) -> None:
    due = Pacer(pace).take_due()
    assert len(due) == min(pace.bound, pace.steps * pace.groups_per_step)
    assert [number for number, _ in due] == list(range(len(due)))


def test_with_no_staleness_each_task_asks_for_the_weights_that_it_trains() -> None:
    pacer = Pacer(Pace(steps=4, groups_per_step=2, sync_interval=1, max_staleness=0))
    assert pacer.take_due() == [(0, 0), (1, 0)]
    pacer.saw_retired([0, 1])
    pacer.saw_version(1, 1)
    assert pacer.take_due() == [(2, 1), (3, 1)]


def test_tasks_beyond_the_next_announcement_wait_for_it() -> None:
    pacer = Pacer(Pace(steps=8, groups_per_step=1, sync_interval=2, max_staleness=0))
    assert pacer.take_due() == [(0, 0), (1, 0)]
    pacer.saw_retired([0])
    pacer.saw_version(0, 1)  # a step without an announcement
    assert pacer.take_due() == [(2, 1)]
    pacer.saw_retired([1])  # dropped: its slot is before the announcement, so its replacement must not wait for it
    assert pacer.take_due() == [(3, 0)]


@given(
    PACES,
    st.lists(st.integers(0, 30), unique=True),
    st.lists(st.integers(0, 30), unique=True),
    st.randoms(use_true_random=False),
)
def test_a_log_read_in_any_order_and_twice_gives_the_same_requests(pace, issued, retired, random) -> None:
    facts = [("task", n) for n in issued] + [("retired", n) for n in retired]
    again = facts + random.sample(facts, len(facts) // 2)
    random.shuffle(again)
    due = []
    for log in (facts, again):
        pacer = Pacer(pace)
        for kind, number in log:
            if kind == "task":
                pacer.saw_task(number, 0)
            else:
                pacer.saw_retired([number])
        due.append(pacer.take_due())
    assert due[0] == due[1]
    assert not {number for number, _ in due[0]} & {*issued, *retired}


def test_a_group_that_waits_for_rewards_gives_its_slot_back_and_takes_one_again_when_it_is_released() -> None:
    pacer = Pacer(Pace(steps=9, groups_per_step=2, sync_interval=1, max_staleness=0, free_waiting=2))
    assert pacer.take_due() == [(0, 0), (1, 0)]
    pacer.saw_waiting(0, True)
    pacer.saw_waiting(0, True)
    assert pacer.take_due() == [(2, 0)], "it is for the step that the waiting group was meant for"
    assert (pacer.in_flight, pacer.waiting) == (3, 1)
    pacer.saw_waiting(0, False)
    assert pacer.take_due() == []
    pacer.saw_retired([1, 2])
    pacer.saw_version(1, 1)
    assert pacer.take_due() == [(3, 1)], "the released group holds the other slot until the trainer has dropped it"
    pacer.saw_retired([0])
    assert pacer.take_due() == [(4, 1)]
    pacer.saw_waiting(0, True)  # read late: it is retired
    assert (pacer.in_flight, pacer.waiting) == (2, 0)


def test_groups_beyond_those_that_may_wait_hold_their_slots() -> None:
    pacer = Pacer(Pace(steps=9, groups_per_step=2, sync_interval=1, max_staleness=0, free_waiting=3))
    issued = []
    while due := pacer.take_due():
        issued += due
        for number, _ in due:
            pacer.saw_waiting(number, True)
    assert len(issued) == 5, "three wait without a slot, two fill the bound"
    assert (pacer.in_flight, pacer.waiting) == (5, 3)


def test_by_default_a_waiting_group_holds_its_slot() -> None:
    pacer = Pacer(Pace(steps=9, groups_per_step=2, sync_interval=1, max_staleness=0))
    pacer.take_due()
    pacer.saw_waiting(0, True)
    assert pacer.take_due() == []


@given(PACES, st.integers(1, 4), st.lists(st.integers(0, 20), unique=True), st.randoms(use_true_random=False))
def test_where_the_order_of_the_topics_differs_the_pace_does_not(
    pace: Pace, free_waiting: int, retired: list[int], random: Random
) -> None:
    """Within the topic of waiting groups the order of a group's states is kept."""
    pace = replace(pace, free_waiting=free_waiting)
    states = [(n, state) for state in (True, False) for n in range(20) if state or n % 3 == 0]
    facts = [("task", n) for n in range(20)] + [("retired", n) for n in retired]
    outcomes = set()
    for _ in range(3):
        random.shuffle(facts)
        pacer, order = Pacer(pace), [*facts]
        for place, state in zip(sorted(random.choices(range(len(order) + 1), k=len(states))), states, strict=True):
            order.insert(place + states.index(state), ("waiting", state))
        for kind, fact in order:
            if kind == "task":
                pacer.saw_task(fact, fact % 3)
            elif kind == "retired":
                pacer.saw_retired([fact])
            else:
                pacer.saw_waiting(*fact)
        outcomes.add((pacer.in_flight, pacer.waiting, tuple(pacer.take_due())))
    assert len(outcomes) == 1
