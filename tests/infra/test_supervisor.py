"""The supervisor restarts roles, leaves them alone or ends the run; tested without processes and without a clock."""

from __future__ import annotations

import signal

import pytest

from infra.launcher.supervisor import (
    BAD_CONFIGURATION,
    DONE,
    FAILED,
    INTERRUPTED,
    End,
    Kill,
    Limits,
    Message,
    Role,
    Spawn,
    Supervisor,
    Terminate,
)
from rft.errors import FencedError, StarvationError


def make(limit: int = 3, outage_s: float = 0.0, **broker: bool) -> Supervisor:
    roles = [
        Role("broker", outlives_roles=True, state="running", **broker),
        Role("conductor", on_success="end_run"),
        Role("trainer", on_success="leave"),
        Role("explorer-0"),
    ]
    supervisor = Supervisor(roles, Limits(limit, 100, backoff_s=1, stop_timeout_s=30, outage_s=outage_s))
    assert supervisor.start(0) == [Spawn("conductor"), Spawn("trainer"), Spawn("explorer-0")]
    return supervisor


def without_messages(actions: list) -> list:
    return [action for action in actions if not isinstance(action, Message)]


def test_a_role_that_dies_is_started_again_after_a_wait_that_doubles():
    supervisor = make()
    now = 0.0
    for wait in (1, 2, 4):
        assert without_messages(supervisor.exited("explorer-0", -signal.SIGKILL, None, now)) == []
        assert supervisor.tick(now + wait - 0.01) == []
        assert supervisor.tick(now + wait) == [Spawn("explorer-0")]
        now += wait
    assert supervisor.roles["explorer-0"].restarts == 3


def test_the_wait_never_exceeds_half_a_minute():
    supervisor = make(limit=20)
    for _ in range(8):
        supervisor.exited("explorer-0", 1, None, 0)
        supervisor.tick(30)
    supervisor.exited("explorer-0", 1, None, 50)
    assert supervisor.tick(80) == [Spawn("explorer-0")]


def test_more_deaths_than_the_limit_end_the_run_and_name_the_role():
    supervisor = make(limit=1)
    supervisor.exited("explorer-0", 1, None, 0)
    supervisor.tick(1)
    assert supervisor.exited("explorer-0", 1, None, 2) == [Terminate("conductor"), Terminate("trainer")]
    supervisor.exited("conductor", 0, None, 3)
    (end,) = supervisor.exited("trainer", 0, None, 3)
    assert isinstance(end, End)
    assert (end.code, end.role) == (FAILED, "explorer-0")
    assert "exit code 1" in end.reason


def test_deaths_outside_the_window_are_forgotten():
    supervisor = make(limit=1)
    for now in (0, 200, 400):
        assert without_messages(supervisor.exited("explorer-0", 1, None, now)) == []
        assert supervisor.tick(now + 1) == [Spawn("explorer-0")]


def test_the_conductor_s_success_stops_the_others_and_ends_the_run_well():
    supervisor = make()
    assert supervisor.exited("trainer", DONE, None, 1) == []
    assert supervisor.tick(50) == [], "a trainer that has finished is not started again"
    assert supervisor.exited("conductor", DONE, None, 60) == [Terminate("explorer-0")]
    assert supervisor.exited("explorer-0", -signal.SIGTERM, None, 61) == [End(DONE, "done")]


def test_an_explorer_that_ends_unasked_is_started_again():
    supervisor = make()
    (message,) = supervisor.exited("explorer-0", DONE, None, 1)
    assert isinstance(message, Message)
    assert "without being asked" in message.text
    assert supervisor.tick(3) == [Spawn("explorer-0")]


def test_bad_configuration_ends_the_run_at_once():
    supervisor = make()
    assert without_messages(supervisor.exited("trainer", 2, None, 1)) == [
        Terminate("conductor"),
        Terminate("explorer-0"),
    ]
    assert supervisor.ending is not None
    assert (supervisor.ending.code, supervisor.ending.role) == (BAD_CONFIGURATION, "trainer")


def test_a_role_that_must_not_be_started_again_ends_the_run_at_once():
    supervisor = make(limit=5)
    actions = without_messages(supervisor.exited("trainer", FencedError.exit_code, "FencedError: taken over", 1))
    assert actions == [Terminate("conductor"), Terminate("explorer-0")]
    assert supervisor.ending is not None
    assert (supervisor.ending.code, supervisor.ending.role) == (FAILED, "trainer")


def test_the_same_fault_twice_ends_the_run_but_different_ones_do_not():
    supervisor = make(limit=5)
    for fault in ("PolicyError at a", "PolicyError at b", None):
        assert without_messages(supervisor.exited("explorer-0", 1, fault, 0)) == []
        supervisor.tick(20)
    assert without_messages(supervisor.exited("explorer-0", 1, "PolicyError at b", 20)) == []
    supervisor.tick(40)
    assert supervisor.exited("explorer-0", 1, "PolicyError at b", 40) == [Terminate("conductor"), Terminate("trainer")]
    assert supervisor.ending is not None
    assert supervisor.ending.code == FAILED


def test_a_role_that_stands_still_again_at_the_same_place_ends_the_run_however_long_that_takes():
    supervisor = make(limit=5)
    (message,) = supervisor.exited("explorer-0", 1, "StallError at a", 2000, idle_s=1800)
    assert isinstance(message, Message)
    assert "explorer-0 ended because it made no progress for 1800 s" in message.text
    assert "restart 1 of at most 5" in message.text
    supervisor.tick(2010)
    actions = supervisor.exited("explorer-0", 1, "StallError at a", 2010 + 1850, idle_s=1800)
    assert actions == [Terminate("conductor"), Terminate("trainer")]
    assert supervisor.ending is not None
    assert "no progress for 1800 s" in supervisor.ending.reason


def test_a_role_that_has_worked_between_two_stalls_is_started_again():
    supervisor = make(limit=5)
    for now in (2000, 4000, 6000):
        assert without_messages(supervisor.exited("explorer-0", 1, "StallError at a", now, idle_s=1800)) == []
        assert supervisor.tick(now + 50) == [Spawn("explorer-0")]
    assert supervisor.ending is None


def test_the_same_fault_again_after_the_restart_window_does_not_end_the_run():
    supervisor = make(limit=5)
    for now in (0, 101, 202):
        assert without_messages(supervisor.exited("explorer-0", 1, "PolicyError at a", now)) == []
        supervisor.tick(now + 50)
    assert supervisor.ending is None


def test_a_run_in_which_nothing_can_be_trained_ends_once():
    supervisor = make(limit=5)
    stopped = without_messages(supervisor.exited("conductor", StarvationError.exit_code, "StarvationError at a", 1))
    assert stopped == [Terminate("trainer"), Terminate("explorer-0")]
    assert supervisor.ending is not None
    assert (supervisor.ending.code, supervisor.ending.role) == (FAILED, "conductor")


def test_an_outage_of_the_broker_uses_up_no_restarts_however_long_it_lasts():
    supervisor = make(limit=1)
    now = 0.0
    for _ in range(500):
        assert without_messages(supervisor.exited("trainer", 1, None, now, outage=True)) == []
        now += 5
        assert supervisor.tick(now) == [Spawn("trainer")]
        now += 4
    assert supervisor.ending is None
    assert supervisor.roles["trainer"].deaths == []
    assert without_messages(supervisor.exited("trainer", 1, None, now)) == [], "this one counts, and is the first"


def test_an_outage_longer_than_the_limit_ends_the_run_and_names_the_setting():
    supervisor = make(limit=1, outage_s=60)
    for now in range(0, 60, 10):
        assert without_messages(supervisor.exited("trainer", 1, None, now, outage=True)) == []
        supervisor.tick(now + 5)
    assert supervisor.exited("trainer", 1, None, 60, outage=True) == [Terminate("conductor"), Terminate("explorer-0")]
    assert supervisor.ending is not None
    assert "broker.outage_s" in supervisor.ending.reason


def test_a_role_that_ignores_the_request_to_stop_is_killed_after_the_timeout():
    supervisor = make()
    supervisor.exited("conductor", DONE, None, 100)
    assert supervisor.tick(129) == []
    assert without_messages(supervisor.tick(130)) == [Kill("trainer"), Kill("explorer-0")]
    assert supervisor.tick(131) == []
    supervisor.exited("trainer", -9, None, 131)
    assert supervisor.exited("explorer-0", -9, None, 131) == [End(DONE, "done")]


def test_the_first_interrupt_stops_and_the_second_kills():
    supervisor = make()
    supervisor.exited("explorer-0", 1, None, 0)
    assert without_messages(supervisor.interrupt(0.5)) == [Terminate("conductor"), Terminate("trainer")]
    assert supervisor.tick(5) == [], "what waited for its restart is not started any more"
    supervisor.exited("conductor", 0, None, 6)
    assert supervisor.interrupt(7) == [Kill("trainer")]
    assert supervisor.exited("trainer", -9, None, 8) == [End(INTERRUPTED, "interrupted")]


def test_a_durable_broker_is_started_again_and_a_volatile_one_ends_the_run():
    durable = make()
    assert without_messages(durable.exited("broker", -9, None, 0)) == []
    assert durable.tick(1) == [Spawn("broker")]
    volatile = make(restartable=False)
    stopped = volatile.exited("broker", -9, None, 0)
    assert stopped == [Terminate("conductor"), Terminate("trainer"), Terminate("explorer-0")]
    assert volatile.ending is not None
    assert volatile.ending.role == "broker"


def test_the_broker_s_end_after_the_roles_changes_nothing():
    supervisor = make(restartable=False)
    supervisor.exited("conductor", DONE, None, 1)
    assert supervisor.exited("broker", -9, None, 2) == []
    supervisor.exited("trainer", 0, None, 3)
    assert supervisor.exited("explorer-0", 0, None, 3) == [End(DONE, "done")]


def with_archiver() -> Supervisor:
    roles = [Role("archiver", stops_last=True), Role("conductor", on_success="end_run"), Role("explorer-0")]
    supervisor = Supervisor(roles, Limits(3, restart_window_s=100, backoff_s=1, stop_timeout_s=30))
    supervisor.start(0)
    return supervisor


def test_the_archiver_is_asked_to_stop_when_all_others_have():
    supervisor = with_archiver()
    assert supervisor.exited("conductor", 0, None, 10) == [Terminate("explorer-0")]
    assert supervisor.exited("explorer-0", 0, None, 15) == [Terminate("archiver")]
    assert supervisor.tick(44) == []
    assert supervisor.exited("archiver", 0, None, 44) == [End(DONE, "done")]


def test_the_archiver_has_its_own_time_to_stop_even_after_others_were_killed():
    supervisor = with_archiver()
    supervisor.interrupt(0)
    assert without_messages(supervisor.tick(30)) == [Kill("explorer-0"), Kill("conductor")][::-1]
    supervisor.exited("conductor", -9, None, 30)
    assert supervisor.exited("explorer-0", -9, None, 30) == [Terminate("archiver")]
    assert supervisor.tick(59) == []
    assert without_messages(supervisor.tick(60)) == [Kill("archiver")]
    assert supervisor.exited("archiver", -9, None, 60) == [End(INTERRUPTED, "interrupted")]


def test_a_second_interrupt_kills_the_archiver_with_the_others():
    supervisor = with_archiver()
    supervisor.interrupt(0)
    assert supervisor.interrupt(1) == [Kill("archiver"), Kill("conductor"), Kill("explorer-0")]
    for name in ("conductor", "explorer-0"):
        assert supervisor.exited(name, -9, None, 1) == []
    assert supervisor.exited("archiver", -9, None, 1) == [End(INTERRUPTED, "interrupted")]


def test_without_others_left_the_archiver_is_asked_at_once():
    supervisor = with_archiver()
    supervisor.exited("explorer-0", 1, None, 0)
    assert supervisor.exited("conductor", 0, None, 0) == [Terminate("archiver")]


def test_a_run_goes_on_without_a_role_that_is_not_essential() -> None:
    """A tracker with a wrong configuration, or one that keeps failing, is left alone, and a message says so."""
    for code, error, times in ((2, None, 1), (1, "ConfigError: no", 2), (1, None, 4)):
        supervisor = Supervisor(
            [Role("conductor", on_success="end_run"), Role("tracker", essential=False)], Limits(3, 300.0, 0.0, 30.0)
        )
        supervisor.start(0.0)
        for at in range(times):
            actions = supervisor.exited("tracker", code, error, float(at))
            supervisor.tick(at + 0.5)
        assert [action.text for action in actions if isinstance(action, Message)][-1].endswith(
            "the run goes on without it"
        )
        assert supervisor.ending is None
        assert supervisor.tick(100.0) == []
        supervisor.exited("conductor", 0, None, 101.0)
        assert supervisor.ending is not None
        assert supervisor.ending.code == 0


@pytest.mark.parametrize(("code", "fault"), [(2, None), (3, "StarvationError at a"), (1, None)])
def test_the_reason_for_an_end_holds_the_error_that_the_role_reported(code, fault):
    supervisor = Supervisor([Role("conductor", on_success="end_run")], Limits(0, 300, 1, 30))
    supervisor.start(0)
    (end,) = without_messages(supervisor.exited("conductor", code, fault, 1, error="RewardError: broken"))
    assert isinstance(end, End)
    assert "RewardError: broken" in end.reason
    assert end.told
