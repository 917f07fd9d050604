"""A role waits for a broker that is away, says so, and ends its waits when asked to stop; a command does not wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, TopicAuthorizationFailedError

from rft.errors import BrokerError, OutageError, OutageLimitError
from rft.log import outages
from rft.log.outages import Outage, ProgressWatch, longest_wait, wait_for_broker, wait_out


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_policy", outages._Policy())
    monkeypatch.setattr(outages, "OUTAGE_PAUSE_S", 0.01)


def away(failures: int, error: Callable[[], Exception] = lambda: KafkaConnectionError("refused")) -> Callable[[], int]:
    """Return a call that fails a number of times and then returns the number of calls."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise error()
        return calls

    return call


def test_a_command_gets_the_first_error() -> None:
    with pytest.raises(KafkaConnectionError):
        wait_out("cannot read", away(1))


def test_a_role_waits_as_long_as_it_takes() -> None:
    wait_for_broker(0, threading.Event())
    assert wait_out("cannot read", away(50)) == 51
    assert wait_out("cannot read", away(50, lambda: OutageError("refused"))) == 51
    assert longest_wait() is None


def test_what_waiting_cannot_cure_is_raised_at_once() -> None:
    wait_for_broker(0, threading.Event())
    with pytest.raises(TopicAuthorizationFailedError):
        wait_out("cannot read", away(1, TopicAuthorizationFailedError))
    with pytest.raises(BrokerError, match=r"cannot read: .*TopicAuthorizationFailed"):
        Outage("cannot read").failed(TopicAuthorizationFailedError())


def test_an_outage_longer_than_the_setting_ends_the_role_once_and_names_the_setting() -> None:
    wait_for_broker(0.2, threading.Event())
    began = time.monotonic()
    with pytest.raises(OutageLimitError, match=r"cannot read for 0\.2 s: .*refused.*broker\.outage_s") as raised:
        wait_out("cannot read", away(10**9))
    assert 0.2 <= time.monotonic() - began < 10
    assert raised.value.exit_code == 3


def test_two_short_outages_are_not_one_long_one() -> None:
    wait_for_broker(0.3, threading.Event())
    outage = Outage("cannot read")
    for _ in range(5):
        began = time.monotonic()
        while time.monotonic() - began < 0.15:
            outage.failed(KafkaTimeoutError())
        outage.succeeded()


def test_a_role_that_is_asked_to_stop_waits_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "STOP_GRACE_S", 0.1)
    stop = threading.Event()
    wait_for_broker(0, stop)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(OutageError, match="cannot read: the broker is away"):
        wait_out("cannot read", away(10**9))
    # The moment is one for all that the role still has to do.
    began = time.monotonic()
    with pytest.raises(OutageError):
        wait_out("cannot write", away(10**9))
    assert time.monotonic() - began < 0.1
    assert wait_out("cannot write", away(0)) == 1


def test_a_wait_is_described_while_it_lasts_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outages, "LOG_AFTER_S", 0.05)
    caplog.set_level(logging.INFO)
    wait_for_broker(0, threading.Event())
    first, second = Outage("cannot read rft.ready.v1"), Outage("cannot write")
    for _ in range(20):
        first.failed(KafkaConnectionError("refused"))
        second.failed(KafkaConnectionError("refused"))
    assert str(longest_wait()).startswith("waits for the broker since 0 s: cannot read rft.ready.v1")
    first.succeeded()
    second.succeeded()
    assert longest_wait() is None
    assert sum("waits for the broker since" in line for line in caplog.messages) == 1
    assert "the broker answers again" in caplog.text


def test_silence_counts_as_a_fault_only_if_the_broker_answers() -> None:
    wait_for_broker(0, threading.Event())
    asked: list[float] = []
    watch = ProgressWatch(0.05, lambda: asked.append(time.monotonic()), lambda: "nothing came")
    time.sleep(0.06)
    watch.check()
    assert len(asked) == 1
    watch.check()
    watch.moved()
    time.sleep(0.06)
    watch.check()
    assert len(asked) == 2
    time.sleep(0.06)
    with pytest.raises(BrokerError, match="nothing came"):
        watch.check()
