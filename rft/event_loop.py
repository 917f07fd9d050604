"""Runs a coroutine in an event loop that ends with it, whatever tasks and threads of libraries do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GRACE_S = 2.0
"""How long tasks that were cancelled may take to end."""


def run_in_loop(main: Coroutine[Any, Any, T], *, grace_s: float = GRACE_S) -> T:
    """Run ``main`` in a new event loop and return its result, or raise its error.

    Other tasks are cancelled when ``main`` ends. Unlike :func:`asyncio.run`, this function waits for them for
    ``grace_s`` only, and not at all for threads of ``asyncio.to_thread``. A task that ignores its cancellation, or a
    thread that waits for a broker, would otherwise keep a process that has failed alive for good.
    """
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=grace_s))
            loop.run_until_complete(asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=grace_s))
        finally:
            asyncio.set_event_loop(None)
            loop.close()
