"""Retrying: what is tried again, how often, and when it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from rft.retry import Backoff, Deadline, any_of, retry, retry_async

SOON = Backoff(0.01)


class AwayError(Exception):
    """May pass."""


def failing(times: int, error: Callable[[], Exception] = lambda: AwayError("away")) -> Callable[[], int]:
    """Return a call that fails ``times`` times, then returns how often it was called."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error()
        return calls

    return call


def test_a_call_is_repeated_until_it_succeeds_and_each_failure_is_reported() -> None:
    seen: list[tuple[str, int]] = []

    def note(error: Exception, failures: int) -> None:
        seen.append((str(error), failures))

    assert retry(failing(2), retryable=any_of(AwayError), backoff=SOON, on_failure=note) == 3
    assert seen == [("away", 1), ("away", 2)]


def test_an_error_that_another_try_cannot_cure_is_raised_at_once() -> None:
    call = failing(5, lambda: ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        retry(call, retryable=any_of(AwayError), backoff=SOON)
    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(retry_async(asynchronous(call), retryable=any_of(AwayError), backoff=SOON))


def test_the_last_error_is_raised_when_the_next_pause_would_end_after_the_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(AwayError):
        retry(failing(1000), retryable=any_of(AwayError), backoff=SOON, deadline=Deadline(0.1))
    assert 0.05 < time.monotonic() - began < 5
    with pytest.raises(AwayError):
        retry(failing(1), retryable=any_of(AwayError), backoff=Backoff(60), deadline=Deadline(1))
    with pytest.raises(AwayError):
        retry(failing(1), retryable=any_of(AwayError), backoff=SOON, deadline=Deadline(0))


def test_an_event_ends_the_pause_and_the_last_error_is_raised() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    with pytest.raises(AwayError):
        retry(failing(1000), retryable=lambda _: not stop.is_set(), backoff=Backoff(30), pause=stop.wait)
    assert time.monotonic() - began < 10


def test_a_coroutine_is_repeated_without_holding_up_the_loop() -> None:
    async def main() -> tuple[int, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        task = asyncio.create_task(tick())
        calls = await retry_async(asynchronous(failing(3)), retryable=any_of(AwayError), backoff=Backoff(0.05))
        task.cancel()
        return calls, ticks

    calls, ticks = asyncio.run(main())
    assert calls == 4
    assert ticks > 10


def test_a_retried_coroutine_can_be_cancelled_in_its_pause() -> None:
    async def main() -> None:
        forever = retry_async(asynchronous(failing(1000)), retryable=any_of(AwayError), backoff=Backoff(60))
        await asyncio.wait_for(forever, 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_pauses_grow_up_to_the_longest() -> None:
    backoff = Backoff(0.2, 2.0, 5.0)
    assert [backoff.pause_s(n) for n in (1, 2, 3, 6, 10_000)] == [0.2, 0.4, 0.8, 5.0, 5.0]
    assert Backoff(0.5).pause_s(100_000) == 0.5


def test_a_deadline_never_has_less_than_nothing_left() -> None:
    deadline = Deadline(0.02)
    assert 0 < deadline.remaining() <= 0.02
    assert not deadline.passed
    time.sleep(0.03)
    assert deadline.remaining() == 0
    assert deadline.passed


def asynchronous(call: Callable[[], int]):
    async def run() -> int:
        return call()

    return run
