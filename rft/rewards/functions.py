"""Loads one reward function and turns what it returns into numbers by name.

A reward function takes ``response`` and ``answer``. By keyword it also gets those of the following that it declares:
``prompt``, ``metadata`` (the task's, a dict), ``written_tokens`` (how many the policy wrote) and its options. A
``**options`` parameter takes prompt, metadata and all options. It may be an ``async def`` function. It returns

- a number;
- several of them, as a dict by name, whose sum counts;
- or None, which abstains: the term does not count for this sample. The weights of the other terms stay as they are.

Numbers are finite and at most ``MAX_REWARD`` in size. Texts are refused, even if they spell a number.

It imports neither numpy nor the configuration, so that a process that runs functions starts quickly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from rft.errors import ConfigError, RewardError
from rft.plugins import USER_FAILURES, error_text, resolve
from rft.rewards.bounds import ALLOWED, is_reward
from rft.rewards.dataset_scorer import reasoning_gym
from rft.rewards.matching import exact_match, length_penalty, matches_format, numeric_match
from rft.rewards.mathematics import math_verify

Returned = float | Mapping[str, float | None] | None
RewardFunction = Callable[..., Returned | Coroutine[Any, Any, Returned]]

NAMED: dict[str, RewardFunction] = {
    "exact_match": exact_match,
    "numeric_match": numeric_match,
    "math_verify": math_verify,
    "format": matches_format,
    "length_penalty": length_penalty,
    "reasoning_gym": reasoning_gym,
}
UNBOUNDED = frozenset({"format", "reasoning_gym"})
"""Shipped functions whose time depends on a pattern or on what the model wrote. A regular expression may backtrack
without end, and holds Python's lock then."""
MAX_NAMED = 64
"""Rewards by name that one function may return, as many as an experience may bring."""
MAX_NAME_CHARS = 200
_CONTEXT = ("prompt", "metadata", "written_tokens")
_WITH_OPTIONS = ("prompt", "metadata")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a reward function may see of one experience."""

    response: str
    answer: str | None = None
    prompt: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The task's, plain JSON values."""
    written_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LoadedReward:
    """One reward function with its options. It may be called from any thread."""

    name: str
    function: RewardFunction
    wanted: tuple[str, ...]
    """Which of prompt, metadata and written_tokens it declares."""
    options: Mapping[str, Any]
    is_async: bool

    def call(self, sample: Sample) -> dict[str, float]:
        """Return the rewards by name; the name of a single one is empty, and there is none if the function abstains.

        The function must not be ``async``. Raises RewardError that names the function.
        """
        try:
            returned = self._start(sample)
        except BaseException as error:
            raise self._failure(error) from error
        return named_values(self.name, returned)

    async def call_async(self, sample: Sample) -> dict[str, float]:
        """Do as ``call`` does. A function that is not ``async`` runs on the caller's event loop, and blocks it."""
        try:
            returned = self._start(sample)
            if inspect.isawaitable(returned):
                returned = await returned
        except BaseException as error:
            raise self._failure(error) from error
        return named_values(self.name, returned)

    def _start(self, sample: Sample) -> Any:
        given = {key: getattr(sample, key) for key in self.wanted}
        return self.function(sample.response, sample.answer, **given, **self.options)

    def _failure(self, error: BaseException) -> BaseException:
        """Return the error to raise: what a user's code raised fails the sample; other errors are as they were."""
        if isinstance(error, RewardError) or not isinstance(error, USER_FAILURES):
            return error
        return RewardError(f"reward function {self.name} raised {type(error).__name__}: {error_text(error)}")


def load_reward(name: str, options: Mapping[str, Any], setting: str = "processor.rewards") -> LoadedReward:
    """Find a reward function and check its options. ``setting`` is where it is named, for errors.

    Raises ConfigError for an unknown function, and for options that are unknown, missing or wrong.
    """
    function = resolve(f"{setting}: function", name, NAMED)
    loaded = LoadedReward(name, function, _wanted(setting, name, function, options), dict(options), _is_async(function))
    if name in NAMED:
        _try_out(setting, loaded)
    return loaded


def named_values(name: str, returned: object) -> dict[str, float]:
    """Return what a function returned as rewards by name; the name of a single one is empty. None gives no reward.

    Raises RewardError that names the function ``name`` if it is no reward.
    """
    if not isinstance(returned, Mapping):
        return {} if returned is None else {"": _number(name, returned)}
    if len(returned) > MAX_NAMED:
        raise RewardError(f"reward function {name} returned {len(returned)} rewards, allowed: {MAX_NAMED}")
    for key in returned:
        if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME_CHARS:
            raise RewardError(f"reward function {name} returned a reward named {key!r:.200}; names are texts")
    return {key: _number(f"{name}, {key}", value) for key, value in returned.items() if value is not None}


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)


def _wanted(setting: str, name: str, function: RewardFunction, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts of the context that the function declares, and check the options against its signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{setting}: {name!r} has no signature to check options against") from error
    taken = {key for key in options if key in _CONTEXT}
    if taken:
        raise ConfigError(f"{setting}: {name}: option {min(taken)!r} would hide what every function gets")
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    wanted = tuple(k for k in _CONTEXT if k in signature.parameters or (anything and k in _WITH_OPTIONS))
    try:
        signature.bind("response", "answer", **dict.fromkeys(wanted), **options)
    except TypeError as error:
        known = [k for k in signature.parameters if k not in _CONTEXT][2:]
        raise ConfigError(f"{setting}: {name}: {error}; its options are {', '.join(known) or 'none'}") from error
    return wanted


def _try_out(setting: str, reward: LoadedReward) -> None:
    """Score an answer of 1, so that wrong values of options are found before the run."""
    context = {"prompt": "", "metadata": {}, "written_tokens": 1}
    try:
        reward.function("1", "1", **{key: context[key] for key in reward.wanted}, **reward.options)
    except USER_FAILURES as error:
        given = ", ".join(f"{key} = {value!r}" for key, value in reward.options.items())
        raise ConfigError(f"{setting}: {reward.name} cannot work with {given or 'no options'}: {error}") from error


def _number(name: str, reward: Any) -> float:
    if isinstance(reward, str | bytes):
        raise RewardError(f"reward function {name} returned the text {reward[:80]!r}, must be a number")
    if inspect.isawaitable(reward):
        raise RewardError(f"reward function {name} returned a coroutine; write it as 'async def', or await in it")
    try:
        number = float(reward)
    except USER_FAILURES:
        raise RewardError(f"reward function {name} returned {_shown(reward)}, must be a number") from None
    if not is_reward(number):
        raise RewardError(f"reward function {name} returned {number}; rewards are finite and {ALLOWED}")
    return number


def _shown(value: object) -> str:
    try:
        return f"{value!r:.200}"
    except USER_FAILURES:
        return f"a {type(value).__name__}"
