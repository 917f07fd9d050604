"""Calls a user's function as the agent of a rollout."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rft.errors import ConfigError, RolloutError
from rft.plugins import USER_FAILURES, resolve
from schemas.events import Task

if TYPE_CHECKING:
    # It imports torch, which the preflight must not.
    from producers.gateway.open_session import OpenSession

KEYWORDS = ("base_url", "api_key", "task")


class FunctionAgent:
    """Is an agent that ``rollout.agent`` names."""

    def __init__(self, name: str) -> None:
        """Raises ConfigError if there is no such function, or if it takes what an explorer does not give."""
        self._function: Callable[..., Any] = resolve("rollout.agent", name, {})
        self._keywords = _keywords(name, self._function)

    async def run(self, task: Task, session: OpenSession) -> object:
        """Return what the function returns, or raise what it raises.

        A function that is no ``async def`` runs in a thread. Canceling abandons that thread: its session has ended, so
        its next request fails.
        """
        given = {"base_url": session.base_url, "api_key": session.api_key, "task": task}
        call = partial(self._function, **{name: given[name] for name in self._keywords})
        if inspect.iscoroutinefunction(self._function):
            return await call()
        return await _in_thread(call, f"agent-{task.group_id}")


def _keywords(name: str, function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return list(KEYWORDS)
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for parameter in parameters:
        required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        if required and (parameter not in by_name or parameter.name not in KEYWORDS):
            raise ConfigError(
                f"rollout.agent = {name!r} takes {parameter.name!r}, which an explorer does not give: it gives the "
                f"keywords {', '.join(KEYWORDS)}"
            )
    return [parameter.name for parameter in by_name if parameter.name in KEYWORDS]


async def _in_thread(call: Callable[[], Any], name: str) -> object:
    """Run ``call`` in a daemon thread of its own. A pool's threads would be used up by calls that hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((result, error))

    def work() -> None:
        result, failure = None, None
        try:
            result = call()
        # Users' code: whatever it raises is raised where the rollout is awaited.
        except BaseException as error:
            failure = error if isinstance(error, USER_FAILURES) else RolloutError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the explorer has ended
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=name, daemon=True).start()
    result, error = await done
    if error is not None:
        raise error
    return result
