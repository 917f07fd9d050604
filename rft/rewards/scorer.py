"""Makes one function that scores an experience from the configured reward terms.

A reward function takes ``response`` and ``answer`` and returns a number; or several of them, as a dict by name, whose
sum counts; or None, which abstains: the term does not count for this sample. By keyword it also gets those of the
following that it declares: ``prompt``, ``metadata`` (the task's, a dict), ``written_tokens`` (how many the policy
wrote) and its options. A ``**options`` parameter takes prompt, metadata and all options.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rft.config import RewardTerm
from rft.errors import ConfigError, RewardError
from rft.plugins import USER_FAILURES, resolve
from rft.rewards.bounds import ALLOWED, is_reward
from rft.rewards.matching import exact_match, length_penalty, matches_format, numeric_match
from rft.rewards.mathematics import math_verify
from schemas.events import Experience

RewardFunction = Callable[..., float | Mapping[str, float | None] | None]
Scorer = Callable[[Experience], tuple[float, dict[str, float]]]
"""Returns the combined reward, and the unweighted reward by function. Raises RewardError."""

NAMED: dict[str, RewardFunction] = {
    "exact_match": exact_match,
    "numeric_match": numeric_match,
    "math_verify": math_verify,
    "format": matches_format,
    "length_penalty": length_penalty,
}
_CONTEXT = ("prompt", "metadata", "written_tokens")
_WITH_OPTIONS = ("prompt", "metadata")


def labels(terms: Sequence[RewardTerm]) -> list[str]:
    """Return the name of each term in the reward by function."""
    names = [term.function for term in terms]
    uses = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if use == 1 else f"{name}#{use}" for name, use in zip(names, uses, strict=True)]


def make_scorer(terms: Sequence[RewardTerm]) -> Scorer:
    """Return one function for all terms: the weighted sum of their rewards.

    A function used more than once appears as ``name``, ``name#2``, …
    Raises ConfigError for an unknown function, and for options that are unknown, missing or wrong.
    """
    prepared = [(label, term.weight, _prepare(term)) for label, term in zip(labels(terms), terms, strict=True)]

    def score(experience: Experience) -> tuple[float, dict[str, float]]:
        metadata = _metadata(experience)
        rewards: dict[str, float] = {}
        parts: list[float] = []
        for label, weight, function in prepared:
            values = function(experience, metadata)
            rewards |= {f"{label}.{name}" if name else label: value for name, value in values.items()}
            parts += [weight * value for value in values.values()]
        if prepared and not parts:
            raise RewardError(f"no reward: {', '.join(label for label, _, _ in prepared)} returned None")
        return math.fsum(parts), rewards

    return score


def _prepare(term: RewardTerm) -> Callable[[Experience, dict[str, Any]], dict[str, float]]:
    """Return a function that gives the term's rewards by name; the name of a single one is empty."""
    name, options = term.function, term.options
    function = _find(name)
    wanted = _wanted(name, function, options)
    if name in NAMED:
        _try_out(name, function, wanted, options)

    def call(experience: Experience, metadata: dict[str, Any]) -> dict[str, float]:
        context = {
            "prompt": experience.prompt,
            "metadata": metadata,
            "written_tokens": int(np.count_nonzero(experience.action_mask)),
        }
        given = {key: context[key] for key in wanted}
        try:
            reward = function(experience.response, experience.answer, **given, **options)
        except RewardError:
            raise
        # The user's code may raise anything.
        except USER_FAILURES as error:
            raise RewardError(f"reward function {name} raised {type(error).__name__}: {error}") from error
        return _values(name, reward)

    return call


def _find(name: str) -> RewardFunction:
    function = resolve("processor.rewards: function", name, NAMED)
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"processor.rewards: {name!r} must be a plain function, not 'async def'")
    return function


def _wanted(name: str, function: RewardFunction, options: dict[str, Any]) -> tuple[str, ...]:
    """Return the parts of the context that the function declares, and check the options against its signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"processor.rewards: {name!r} has no signature to check options against") from error
    taken = {key for key in options if key in _CONTEXT}
    if taken:
        raise ConfigError(f"processor.rewards: {name}: option {min(taken)!r} would hide what every function gets")
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    wanted = tuple(k for k in _CONTEXT if k in signature.parameters or (anything and k in _WITH_OPTIONS))
    try:
        signature.bind("response", "answer", **dict.fromkeys(wanted), **options)
    except TypeError as error:
        known = [k for k in signature.parameters if k not in _CONTEXT][2:]
        raise ConfigError(
            f"processor.rewards: {name}: {error}; its options are {', '.join(known) or 'none'}"
        ) from error
    return wanted


def _try_out(name: str, function: RewardFunction, wanted: tuple[str, ...], options: dict[str, Any]) -> None:
    """Score an answer of 1, so that wrong values of options are found before the run."""
    context = {"prompt": "", "metadata": {}, "written_tokens": 1}
    try:
        function("1", "1", **{key: context[key] for key in wanted}, **options)
    except USER_FAILURES as error:
        given = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        raise ConfigError(f"processor.rewards: {name} cannot work with {given or 'no options'}: {error}") from error


def _metadata(experience: Experience) -> dict[str, Any]:
    try:
        metadata = json.loads(experience.metadata)
    except (ValueError, RecursionError) as error:
        raise RewardError(f"metadata of {experience.experience_id} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise RewardError(f"metadata of {experience.experience_id} is not a JSON object")
    return metadata


def _values(name: str, reward: Any) -> dict[str, float]:
    if not isinstance(reward, Mapping):
        return {} if reward is None else {"": _number(name, reward)}
    for key in reward:
        if not isinstance(key, str) or not key:
            raise RewardError(f"reward function {name} returned a reward named {key!r}; names are texts")
    return {key: _number(f"{name}, {key}", value) for key, value in reward.items() if value is not None}


def _number(name: str, reward: Any) -> float:
    if isinstance(reward, str | bytes):
        raise RewardError(f"reward function {name} returned the text {reward[:80]!r}, must be a number")
    try:
        number = float(reward)
    except (TypeError, ValueError, OverflowError):
        raise RewardError(f"reward function {name} returned {reward!r:.200}, must be a number") from None
    if not is_reward(number):
        raise RewardError(f"reward function {name} returned {number}; rewards are finite and {ALLOWED}")
    return number
