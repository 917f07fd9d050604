"""Runs a coroutine of a user's code for a limited time, whatever it does with its cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from rft.errors import RolloutError
from rft.event_loop import place_of

T = TypeVar("T")

GRACE_S = 5.0
"""How long what was cancelled may take to end, to give back what it holds."""


class StuckRolloutError(RolloutError):
    """A rollout ignores its cancellation. It still runs; ``task`` is what runs it."""

    def __init__(self, text: str, task: asyncio.Task[Any]) -> None:
        super().__init__(text)
        self.task = task


async def run_within(work: Coroutine[Any, Any, T], deadline_s: float) -> T:
    """Return what ``work`` returns, or raise what it raises: SystemExit and KeyboardInterrupt too end no event loop.

    After ``deadline_s`` seconds it is cancelled. Raises TimeoutError if it ends then, StuckRolloutError if it is still
    there after ``GRACE_S`` more. If the caller is cancelled, it waits ``GRACE_S`` for ``work`` to end, too.
    """
    task = asyncio.create_task(_captured(work))
    try:
        await asyncio.wait([task], timeout=deadline_s)
    except asyncio.CancelledError:
        if await _ends(task) and (returned := task.result())[1] is None:
            return returned[0]  # type: ignore[return-value]  # it has swallowed its cancellation, and is done
        raise
    cancelled = not task.done()
    if cancelled and not await _ends(task):
        raise StuckRolloutError(
            f"ran past its deadline of {deadline_s:g} s (rollout.deadline_s) and ignores its cancellation in "
            f"{place_of(task)}: let CancelledError pass",
            task,
        )
    result, error = task.result()
    if error is None:
        return result  # type: ignore[return-value]
    if cancelled and isinstance(error, asyncio.CancelledError):
        raise TimeoutError from None
    raise error


async def _captured(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """Return the result or the error. A task that ended by SystemExit would end the event loop."""
    try:
        return await work, None
    except BaseException as error:
        return None, error


async def _ends(task: asyncio.Task[Any]) -> bool:
    task.cancel()
    await asyncio.wait([task], timeout=GRACE_S)
    return task.done()
