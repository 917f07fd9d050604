"""Judges by a user's function, plain or ``async``, of one sample or of a whole group."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rft.config import RewarderConfig, RewardTerm
from rft.errors import ConfigError, RewardError, RftError
from rft.plugins import USER_FAILURES, error_text, resolve
from rft.rewards.functions import Sample, load_reward, named_values
from rft.rewards.isolation import START_S, CallLimits, IsolatedFunctions
from rft.rewards.judgement import Judgement, Usage

T = TypeVar("T")
MAX_STUCK = 32
"""Calls of a plain function that may hang at once. Python cannot end a thread, so the process ends then."""


class FunctionJudge:
    """Calls a function of one sample, as reward functions of the processor are called.

    An ``async`` one runs on the caller's event loop. A plain one runs in up to ``concurrency`` processes of its own,
    one call at a time in each: one that hangs or dies is ended, and fails its sample.
    """

    def __init__(self, name: str, config: RewarderConfig) -> None:
        """Find the function. Raises ConfigError for an unknown function or wrong options."""
        self._setting = f"rewarders.{name}"
        self._config = config
        self._reward = load_reward(config.function, config.options, self._setting)
        self._threads = CallThreads(config.function)
        self.overhead_s = 0.0 if self._reward.is_async else START_S
        self._idle: list[IsolatedFunctions] = []
        self._closed = False
        self.usage = Usage()

    async def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Judge one sample."""
        (sample,) = samples
        if self._reward.is_async:
            return [Judgement(await self._reward.call_async(sample))]
        return [Judgement(await self._threads.call(lambda: self._call(sample)))]

    async def close(self) -> None:
        """End the processes that are idle. The others end with their calls, or with this process."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _call(self, sample: Sample) -> dict[str, float]:
        """Call the function in a process that is idle, or in a new one. Runs in a thread."""
        try:
            functions = self._idle.pop()
        except IndexError:
            functions = self._start()
        try:
            return functions.functions[0](sample)
        finally:
            if self._closed:
                functions.close()
            else:
                self._idle.append(functions)

    def _start(self) -> IsolatedFunctions:
        setting, config = self._setting, self._config
        limits = CallLimits(
            config.deadline_s, config.memory_mb, f"{setting}.deadline_s", f"{setting}.memory_mb", holds_up=None
        )
        return IsolatedFunctions(limits, [RewardTerm(function=config.function, options=config.options)], setting)


class GroupFunctionJudge:
    """Calls ``function(samples, **options)`` with all samples of a group.

    The samples are :class:`rft.rewards.functions.Sample`. The function returns a list: of each sample, in their order,
    what a reward function returns.
    """

    def __init__(self, name: str, config: RewarderConfig) -> None:
        """Find the function. Raises ConfigError for an unknown function or wrong options."""
        self._name = config.function
        self._function: Callable[..., Any] = resolve(f"rewarders.{name}: function", config.function, {})
        self._options = config.options
        try:
            inspect.signature(self._function).bind([], **config.options)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"rewarders.{name}: {config.function}: {error}; with scope = 'group' it takes a list of samples, and "
                "the options by name"
            ) from error
        self._threads = CallThreads(config.function)
        self.overhead_s = 0.0
        self.usage = Usage()

    async def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Judge the samples of a group."""
        given = list(samples)
        if inspect.iscoroutinefunction(self._function):
            returned = await self._call_async(given)
        else:
            returned = await self._threads.call(lambda: self._call(given))
        if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Sequence):
            raise RewardError(f"reward function {self._name} returned a {type(returned).__name__}, must be a list")
        return [Judgement(named_values(self._name, one)) for one in returned]

    async def close(self) -> None:
        """Leave calls that run: their threads end with the process."""

    def _call(self, samples: list[Sample]) -> Any:
        try:
            return self._function(samples, **self._options)
        except USER_FAILURES as error:
            raise _failure(self._name, error) from error

    async def _call_async(self, samples: list[Sample]) -> Any:
        try:
            return await self._function(samples, **self._options)
        except USER_FAILURES as error:
            raise _failure(self._name, error) from error


class CallThreads:
    """Runs plain functions, each call in a thread of its own that may be left behind."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running = 0
        self._awaited = 0

    async def call(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns. If the caller is cancelled, the thread goes on for nobody.

        Raises RftError when ``MAX_STUCK`` such threads run.
        """
        if self._running - self._awaited >= MAX_STUCK:
            raise RftError(
                f"{self._name} did not return from {MAX_STUCK} calls within rewarders.<name>.deadline_s, and Python "
                "cannot end them. Give it a time limit of its own, or make it async"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def ended(result: T | None, error: BaseException | None) -> None:
            self._running -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, failure = None, None
            try:
                result = function()
            # All of them belong to the caller, also what would end a thread without a word.
            except BaseException as error:
                failure = error
            try:
                loop.call_soon_threadsafe(ended, result, failure)
            except RuntimeError:
                return  # the loop has ended meanwhile

        self._running += 1
        self._awaited += 1
        threading.Thread(target=run, name="reward-call", daemon=True).start()
        try:
            return await future
        finally:
            self._awaited -= 1


def _failure(name: str, error: BaseException) -> RewardError:
    if isinstance(error, RewardError):
        return error
    return RewardError(f"reward function {name} raised {type(error).__name__}: {error_text(error)}")
