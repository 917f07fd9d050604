"""Makes the calls of a turn: in parallel, each with a deadline. Whatever goes wrong becomes the tool's answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rft.plugins import USER_FAILURES, error_text, nearest
from rft.workflows.messages import ToolCall
from rft.workflows.tools.base import Tool, ToolError, ToolSet

MAX_ERROR_CHARS = 1000
LOGGED_TIMEOUTS = 20
"""Timeouts that are logged one by one; afterwards every hundredth."""

log = logging.getLogger("rft")
_lost: set[asyncio.Task[Any]] = set()
"""Calls that ran past their deadline and have not ended: a loop keeps no strong references to its tasks."""
_timeouts = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answered to a call."""

    call: ToolCall
    text: str
    failed: bool
    """Whether it is an error, a timeout, or about a tool or arguments that are wrong."""


async def run_calls(tools: ToolSet, calls: Sequence[ToolCall]) -> list[Answer]:
    """Return the answers to ``calls``, in their order."""
    return list(await asyncio.gather(*(run_call(tools, call) for call in calls)))


async def run_call(tools: ToolSet, call: ToolCall) -> Answer:
    """Return the answer to one call. Only a cancellation of the caller raises."""
    tool = tools.tools.get(call.name)
    if tool is None:
        near = nearest(call.name, tools.tools)
        hint = f" Did you mean {near}?" if near else ""
        known = ", ".join(tools.tools) or "none"
        text = f"Error: there is no tool {call.name!r}.{hint} Tools: {known}."
        return Answer(call, shorten(text, MAX_ERROR_CHARS), True)
    text, failed = await _within(tools.limits.timeout_s, tool, call)
    return Answer(call, shorten(text, tools.limits.answer_chars), failed)


def shorten(text: str, limit: int) -> str:
    """Return ``text`` cut to ``limit`` characters, with a note of what is missing, and in valid UTF-8."""
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= limit:
        return text
    note = f"\n[cut: {len(text)} characters, {limit} are shown]"
    return text[:limit] + note


async def _within(timeout_s: float, tool: Tool, call: ToolCall) -> tuple[str, bool]:
    # A task of its own: a tool that raises CancelledError does not cancel the rollout, and one that ignores its
    # cancellation is left behind.
    task = asyncio.create_task(_answer(tool, call), name=f"tool-{tool.name}")
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        _leave(task)
        raise
    if not done:
        _leave(task)
        _log_timeout(tool.name, timeout_s)
        return f"Error: {tool.name} did not answer within {timeout_s:g} s.", True
    return task.result() if not task.cancelled() else (f"Error: {tool.name} was cancelled.", True)


async def _answer(tool: Tool, call: ToolCall) -> tuple[str, bool]:
    try:
        return await tool.call(call.arguments), False
    except ToolError as error:
        return shorten(f"Error: {error}", MAX_ERROR_CHARS), True
    # A tool is foreign code.
    except USER_FAILURES as error:
        return shorten(f"Error: {tool.name} failed: {type(error).__name__}: {error_text(error)}", MAX_ERROR_CHARS), True


def _leave(task: asyncio.Task[Any]) -> None:
    task.cancel()
    _lost.add(task)
    task.add_done_callback(_lost.discard)


def _log_timeout(name: str, timeout_s: float) -> None:
    global _timeouts
    _timeouts += 1
    if _timeouts <= LOGGED_TIMEOUTS or _timeouts % 100 == 0:
        log.warning("tool %s did not answer within %g s (%d timeouts so far)", name, timeout_s, _timeouts)
