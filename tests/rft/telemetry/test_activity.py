"""A role's activity tells progress, waits and work apart, and only work without progress is a stall."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from kafka.errors import KafkaConnectionError

from rft.log import outages
from rft.telemetry.activity import Activity, name_groups
from rft.telemetry.input_wait import InputWait
from rft.telemetry.stall import GAP_S, StallClock


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def activity(clock: Clock) -> Activity:
    return Activity(clock)


def test_a_wait_keeps_its_beginning_while_it_is_repeated_and_ends_with_progress(activity, clock):
    activity.waits("tasks")
    clock.now += 40
    activity.waits("tasks")
    assert str(activity.state()) == "waits for tasks since 40 s"
    assert activity.state().idle_s == 0
    activity.progressed()
    clock.now += 3
    activity.waits("tasks")
    assert str(activity.state()) == "waits for tasks since 0 s"
    assert activity.state().progress_age_s == 3
    assert activity.state().progress == 1


def test_work_that_is_repeated_is_no_progress(activity, clock):
    activity.progressed()
    for _ in range(10):
        clock.now += 1
        activity.works("takes step %d", 7)
    state = activity.state()
    assert (state.idle_s, str(state)) == (10, "takes step 7, for 9 s")


def test_a_wait_that_is_no_longer_repeated_is_a_loop_that_hangs(activity, clock):
    activity.waits("tasks")
    clock.now += 30
    assert activity.state().idle_s == 30


def test_a_role_starts_until_it_reports_progress_or_a_wait(activity, clock):
    clock.now += 5
    assert str(activity.state()) == "starts, for 5 s"
    activity.works("loads the model")
    assert (activity.state().kind, str(activity.state())) == ("starting", "loads the model, for 0 s")
    activity.waits("tasks")
    activity.works("rolls out")
    assert activity.state().kind == "working"


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[outages.Outage]:
    """A broker that has just gone away, and a role that waits for it."""
    monkeypatch.setattr(outages, "_policy", outages._Policy())
    monkeypatch.setattr("rft.telemetry.activity.LOG_AFTER_S", 0.0)
    outages.wait_for_broker(0, threading.Event())
    outage = outages.Outage("cannot read rft.ready.v1")
    outage.failed(KafkaConnectionError("refused"))
    yield outage
    outage.end()


def test_a_wait_for_the_broker_explains_all_others(activity, outage):
    activity.works("takes step 7")
    state = activity.state()
    assert (state.kind, state.outage) == ("waiting", True)
    assert str(state) == "waits for the broker since 0 s: cannot read rft.ready.v1"
    outage.succeeded()
    assert str(activity.state()) == "takes step 7, for 0 s"


def test_time_in_which_the_broker_was_away_is_no_stall(activity, clock, outage):
    stall = StallClock(clock.now)
    activity.works("publishes")
    for _ in range(600):
        clock.now += 1
        assert stall.observe(clock.now, activity.state()) == 0
    outage.succeeded()
    for second in range(1, 20):
        clock.now += 1
        assert stall.observe(clock.now, activity.state()) == second


def test_time_in_which_the_process_was_stopped_is_no_stall(activity, clock):
    stall = StallClock(clock.now)
    activity.works("takes step 7")
    clock.now += 3600
    assert stall.observe(clock.now, activity.state()) == 0
    clock.now += GAP_S
    assert stall.observe(clock.now, activity.state()) == GAP_S


def test_a_reader_with_lag_does_not_wait(activity, clock, monkeypatch):
    monkeypatch.setattr("rft.telemetry.input_wait.time.monotonic", clock)
    at_end = [True]
    asked = []

    def ask() -> bool:
        asked.append(clock.now)
        return at_end[0]

    reads = InputWait(activity, ask)
    for _ in range(150):
        clock.now += 1
        reads.nothing_came("steps")
    assert activity.state().text == "steps"
    assert len(asked) == 2, "the log is asked once a minute"
    at_end[0] = False
    for _ in range(60):
        clock.now += 1
        reads.nothing_came("steps")
    assert activity.state().kind == "working"
    assert activity.state().idle_s > 0
    reads.came()
    reads.nothing_came("steps")
    assert activity.state().text == "steps"


def test_groups_are_named_and_the_rest_counted():
    assert name_groups(["812"]) == "group 812"
    assert name_groups(["812", "813"], 2) == "groups 812, 813"
    assert name_groups([str(n) for n in range(9)]) == "groups 0, 1, 2, 3 and 5 more"
