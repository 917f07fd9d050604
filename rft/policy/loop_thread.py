"""Runs an event loop on its own thread, for engines that live on one loop and are called from any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from rft.errors import PolicyError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="policy", daemon=True)
        self._thread.start()
        self._running: set[asyncio.Task[Any]] = set()
        self.closed = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine; canceling the future cancels it. Raises PolicyError once closed."""
        if self.closed:
            coroutine.close()
            raise PolicyError("the policy is closed")
        return asyncio.run_coroutine_threadsafe(self._run(coroutine), self._loop)

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Fail what still runs with PolicyError, run ``last``, and end the thread. A second call does nothing."""
        if self.closed:
            last.close()
            return
        self.closed = True
        asyncio.run_coroutine_threadsafe(self._finish(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self.closed:
                raise PolicyError("the policy was closed before this was done") from None
            raise
        finally:
            self._running.discard(task)

    async def _finish(self, last: Coroutine[Any, Any, None]) -> None:
        unfinished = list(self._running)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await last
