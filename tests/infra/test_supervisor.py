"""What becomes of roles that end, without processes and without a clock."""

from __future__ import annotations

import signal

from infra.launcher.supervisor import (
    BAD_CONFIGURATION,
    DONE,
    FAILED,
    INTERRUPTED,
    End,
    Kill,
    Limits,
    Role,
    Say,
    Spawn,
    Supervisor,
    Terminate,
)
from rft.errors import FencedError


def make(limit: int = 3, **broker: bool) -> Supervisor:
    roles = [
        Role("broker", outlives_roles=True, state="running", **broker),
        Role("conductor", on_success="end_run"),
        Role("trainer", on_success="leave"),
        Role("explorer-0"),
    ]
    supervisor = Supervisor(roles, Limits(limit, restart_window_s=100, backoff_s=1, stop_timeout_s=30))
    assert supervisor.start(0) == [Spawn("conductor"), Spawn("trainer"), Spawn("explorer-0")]
    return supervisor


def quiet(actions: list) -> list:
    return [action for action in actions if not isinstance(action, Say)]


def test_a_role_that_dies_is_started_again_after_a_wait_that_doubles():
    supervisor = make()
    now = 0.0
    for wait in (1, 2, 4):
        assert quiet(supervisor.exited("explorer-0", -signal.SIGKILL, None, now)) == []
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
        assert quiet(supervisor.exited("explorer-0", 1, None, now)) == []
        assert supervisor.tick(now + 1) == [Spawn("explorer-0")]


def test_the_conductor_s_success_stops_the_others_and_ends_the_run_well():
    supervisor = make()
    assert supervisor.exited("trainer", DONE, None, 1) == []
    assert supervisor.tick(50) == [], "a trainer that has finished is not started again"
    assert supervisor.exited("conductor", DONE, None, 60) == [Terminate("explorer-0")]
    assert supervisor.exited("explorer-0", -signal.SIGTERM, None, 61) == [End(DONE, "done")]


def test_an_explorer_that_ends_unasked_is_started_again():
    supervisor = make()
    (say,) = supervisor.exited("explorer-0", DONE, None, 1)
    assert isinstance(say, Say)
    assert "without being asked" in say.text
    assert supervisor.tick(3) == [Spawn("explorer-0")]


def test_bad_configuration_ends_the_run_at_once():
    supervisor = make()
    assert quiet(supervisor.exited("trainer", 2, None, 1)) == [Terminate("conductor"), Terminate("explorer-0")]
    assert supervisor.ending is not None
    assert (supervisor.ending.code, supervisor.ending.role) == (BAD_CONFIGURATION, "trainer")


def test_a_role_that_must_not_be_started_again_ends_the_run_at_once():
    supervisor = make(limit=5)
    said = quiet(supervisor.exited("trainer", FencedError.exit_code, "FencedError: taken over", 1))
    assert said == [Terminate("conductor"), Terminate("explorer-0")]
    assert supervisor.ending is not None
    assert (supervisor.ending.code, supervisor.ending.role) == (FAILED, "trainer")


def test_the_same_lasting_error_twice_ends_the_run_but_different_ones_do_not():
    supervisor = make(limit=5)
    for error in ("PolicyError: a", "PolicyError: b", None):
        assert quiet(supervisor.exited("explorer-0", 1, error, 0)) == []
        supervisor.tick(20)
    assert quiet(supervisor.exited("explorer-0", 1, "PolicyError: b", 20)) == []
    supervisor.tick(40)
    assert supervisor.exited("explorer-0", 1, "PolicyError: b", 40) == [Terminate("conductor"), Terminate("trainer")]
    assert supervisor.ending is not None
    assert supervisor.ending.code == FAILED


def test_a_role_that_ignores_the_request_to_stop_is_killed_after_the_timeout():
    supervisor = make()
    supervisor.exited("conductor", DONE, None, 100)
    assert supervisor.tick(129) == []
    assert quiet(supervisor.tick(130)) == [Kill("trainer"), Kill("explorer-0")]
    assert supervisor.tick(131) == []
    supervisor.exited("trainer", -9, None, 131)
    assert supervisor.exited("explorer-0", -9, None, 131) == [End(DONE, "done")]


def test_the_first_interrupt_stops_and_the_second_kills():
    supervisor = make()
    supervisor.exited("explorer-0", 1, None, 0)
    assert quiet(supervisor.interrupt(0.5)) == [Terminate("conductor"), Terminate("trainer")]
    assert supervisor.tick(5) == [], "what waited for its restart is not started any more"
    supervisor.exited("conductor", 0, None, 6)
    assert supervisor.interrupt(7) == [Kill("trainer")]
    assert supervisor.exited("trainer", -9, None, 8) == [End(INTERRUPTED, "interrupted")]


def test_a_durable_broker_is_started_again_and_a_volatile_one_ends_the_run():
    durable = make()
    assert quiet(durable.exited("broker", -9, None, 0)) == []
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


def test_the_archiver_has_time_of_its_own_even_after_others_were_killed():
    supervisor = with_archiver()
    supervisor.interrupt(0)
    assert quiet(supervisor.tick(30)) == [Kill("explorer-0"), Kill("conductor")][::-1]
    supervisor.exited("conductor", -9, None, 30)
    assert supervisor.exited("explorer-0", -9, None, 30) == [Terminate("archiver")]
    assert supervisor.tick(59) == []
    assert quiet(supervisor.tick(60)) == [Kill("archiver")]
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
    """A tracker that has its configuration wrong, or does not stay up, is left alone and said to be."""
    for code, error, times in ((2, None, 1), (1, "ConfigError: no", 2), (1, None, 4)):
        supervisor = Supervisor(
            [Role("conductor", on_success="end_run"), Role("tracker", essential=False)], Limits(3, 300.0, 0.0, 30.0)
        )
        supervisor.start(0.0)
        for at in range(times):
            actions = supervisor.exited("tracker", code, error, float(at))
            supervisor.tick(at + 0.5)
        assert [action.text for action in actions if isinstance(action, Say)][-1].endswith("the run goes on without it")
        assert supervisor.ending is None
        assert supervisor.tick(100.0) == []
        supervisor.exited("conductor", 0, None, 101.0)
        assert supervisor.ending is not None
        assert supervisor.ending.code == 0
