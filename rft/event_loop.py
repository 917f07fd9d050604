"""Runs a coroutine in an event loop that ends with it, whatever tasks and threads of libraries do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

log = logging.getLogger("rft")

_loop: asyncio.AbstractEventLoop | None = None
"""The loop that ``run_in_loop`` runs now."""

GRACE_S = 2.0
"""How long tasks that were cancelled may take to end."""


def run_in_loop(main: Coroutine[Any, Any, T], *, grace_s: float = GRACE_S) -> T:
    """Run ``main`` in a new event loop and return its result, or raise its error.

    Other tasks are cancelled when ``main`` ends. Unlike :func:`asyncio.run`, this function waits for them for
    ``grace_s`` only, and not at all for threads of ``asyncio.to_thread``. A task that ignores its cancellation, or a
    thread that waits for a broker, would otherwise keep a process that has failed alive for good.

    A task or a callback of a user's code that raises SystemExit or KeyboardInterrupt does not end the loop.
    """
    global _loop
    loop = _loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return _run(loop, loop.create_task(main))
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
            _loop = None


def _run(loop: asyncio.AbstractEventLoop, main: asyncio.Task[T]) -> T:
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt) as error:
            # Whatever task raises them, they leave the loop, which can go on. An operator's Ctrl-C is no such error
            # where a handler takes the signal, as in roles.
            if main.done() or (
                isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
            ):
                raise
            log.warning("a task raised %s(%s), which ends nothing but that task", type(error).__name__, error)


def place_of(task: asyncio.Task[Any]) -> str:
    """Return where a task stands: the innermost coroutine that has a place, outside the standard library if any."""
    places = list(_places(task.get_coro()))
    own = [place for place in places if f"{os.sep}asyncio{os.sep}" not in place]
    return (own or places or ["nowhere"])[-1]


def print_tasks(file: TextIO) -> None:
    """Print where each task of the loop that :func:`run_in_loop` runs now awaits something, a line each. Thread-safe.

    The stacks of threads do not tell: a loop whose tasks all wait stands in ``select``.
    """
    loop = _loop
    if loop is None:
        return
    # The set of tasks may change meanwhile, too often for all_tasks.
    with contextlib.suppress(RuntimeError):
        for task in sorted(asyncio.all_tasks(loop), key=asyncio.Task.get_name):
            print(f"task {task.get_name()} awaits: {' > '.join(_places(task.get_coro()))}", file=file)


def _places(awaited: Any) -> Iterator[str]:
    """Yield where a coroutine stands, then where the one stands that it awaits, and so on."""
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
        awaited = next(
            (inner for name in ("cr_await", "gi_yieldfrom", "ag_await") if (inner := getattr(awaited, name, None))),
            None,
        )
