"""Runs coroutines of ``async`` reward functions for callers that are not: on one event loop, in a thread of its own.

All of them share the loop, so that a client that a function keeps between two calls stays usable.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns, or raise what it raises. Any thread may call this; it blocks."""
    return asyncio.run_coroutine_threadsafe(coroutine, _shared_loop()).result()


def _shared_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="async-rewards", daemon=True).start()
        return _loop
