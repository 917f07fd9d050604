"""Runs functions that may block in threads of their own, and never waits longer than it was told to.

A thread cannot be ended from outside. So their number is bounded, and a function that hangs in all of them is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from rft.workflows.tools.base import ToolError

MAX_THREADS = 32
"""Threads of one tool."""
WARN_S = 60.0
"""Time between two warnings that all of them are busy."""

log = logging.getLogger("rft")


class Threads:
    """Calls one function in up to ``limit`` daemon threads at once, so that a process can end while one hangs."""

    def __init__(self, name: str, limit: int = MAX_THREADS) -> None:
        self._name = name
        self._limit = limit
        self._warn_at = 0.0
        self._free = threading.Semaphore(limit)
        self._freed: set[asyncio.Event] = set()

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns, or raise what it raises; SystemExit and the like become ToolError.

        It waits for a free thread. When it is cancelled, the thread goes on, and its result is dropped.
        """
        loop = asyncio.get_running_loop()
        await self._wait_for_thread(loop)
        result: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if result.done():
                return
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)

        def work() -> None:
            value, error = None, None
            try:
                value = context.run(call)
            except Exception as raised:
                # A Future takes no StopIteration.
                error = ToolError("it raised StopIteration") if isinstance(raised, StopIteration) else raised
            except BaseException as raised:
                error = ToolError(f"it raised {type(raised).__name__}: {raised}")
            finally:
                self._free.release()
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(settle, value, error)
                    loop.call_soon_threadsafe(self._wake)

        context = contextvars.copy_context()
        try:
            threading.Thread(target=work, name=f"tool-{self._name}", daemon=True).start()
        except BaseException:
            self._free.release()
            raise
        return await result

    async def _wait_for_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._free.acquire(blocking=False):
            freed = asyncio.Event()
            self._freed.add(freed)
            try:
                await freed.wait()
            except asyncio.CancelledError:
                if time.monotonic() >= self._warn_at:
                    self._warn_at = time.monotonic() + WARN_S
                    log.warning("tool %s: calls find no thread; %d earlier ones still run", self._name, self._limit)
                raise
            finally:
                self._freed.discard(freed)

    def _wake(self) -> None:
        for freed in self._freed:
            freed.set()
