"""Limits how many tries start per second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class RateLimit:
    """Spaces starts evenly. Used on one event loop."""

    def __init__(
        self,
        per_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``per_s`` is None for no limit."""
        self._interval_s = 1 / per_s if per_s else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    async def wait(self) -> None:
        """Return when a try may start."""
        now = self._clock()
        at = max(self._next, now)
        self._next = at + self._interval_s
        if at > now:
            await self._sleep(at - now)

    def pause(self, seconds: float) -> None:
        """Let no try start for ``seconds``, beside those that wait already: a service has asked for it."""
        self._next = max(self._next, self._clock() + seconds)
