"""Retries calls that may succeed later: pauses between tries, and time limits.

Which errors are worth another try is the caller's to say, so nothing here knows of Kafka or HTTP.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Retryable = Callable[[Exception], bool]
"""Returns whether another try may help after an error."""
OnFailure = Callable[[Exception, int], None]
"""Called with the error and the number of failed tries so far, before each pause."""


class Deadline:
    """One time budget that several steps share."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left; 0 when the deadline has passed."""
        return max(self._ends_at - time.monotonic(), 0.0)

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._ends_at


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses between tries: the first, then each ``factor`` times as long, up to ``longest_s``."""

    first_s: float
    factor: float = 1.0
    longest_s: float = math.inf

    def pause_s(self, failures: int) -> float:
        """Return the pause after the given number of ``failures`` (from 1)."""
        return min(self.first_s * self.factor ** min(failures - 1, 64), self.longest_s)


def any_of(*kinds: type[Exception]) -> Retryable:
    """Return a classifier that retries errors of these classes."""
    return lambda error: isinstance(error, kinds)


def retry(
    call: Callable[[], T],
    *,
    retryable: Retryable,
    backoff: Backoff,
    deadline: Deadline | None = None,
    pause: Callable[[float], object] = time.sleep,
    on_failure: OnFailure | None = None,
) -> T:
    """Call until it succeeds, and return its result.

    Raises the last error when it is not ``retryable``, or when the next pause would end after ``deadline``. Pass an
    event's ``wait`` as ``pause`` to end a pause early; ``retryable`` may look at the event, too.
    """
    failures = 0
    while True:
        try:
            return call()
        except Exception as error:
            failures += 1
            pause_s = _next_pause(error, failures, retryable, backoff, deadline)
            if pause_s is None:
                raise
            if on_failure is not None:
                on_failure(error, failures)
        pause(pause_s)


async def retry_async(
    call: Callable[[], Awaitable[T]],
    *,
    retryable: Retryable,
    backoff: Backoff,
    deadline: Deadline | None = None,
    on_failure: OnFailure | None = None,
) -> T:
    """Await ``call()`` until it succeeds, as :func:`retry` does. Stop it by cancelling the task."""
    failures = 0
    while True:
        try:
            return await call()
        except Exception as error:
            failures += 1
            pause_s = _next_pause(error, failures, retryable, backoff, deadline)
            if pause_s is None:
                raise
            if on_failure is not None:
                on_failure(error, failures)
        await asyncio.sleep(pause_s)


def _next_pause(
    error: Exception, failures: int, retryable: Retryable, backoff: Backoff, deadline: Deadline | None
) -> float | None:
    """Return the seconds to wait before the next try; None if there is to be none."""
    if not retryable(error):
        return None
    pause_s = backoff.pause_s(failures)
    return None if deadline is not None and deadline.remaining() < pause_s else pause_s
