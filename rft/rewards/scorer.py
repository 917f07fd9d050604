"""Makes one function that scores an experience from the configured reward terms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rft.config import RewardTerm
from rft.errors import RewardError
from rft.rewards.async_calls import run_async
from rft.rewards.functions import LoadedReward, Sample, load_reward
from schemas.events import Experience

Scorer = Callable[[Experience], tuple[float, dict[str, float]]]
"""Returns the combined reward, and the unweighted reward by function. Raises RewardError."""
TermFunction = Callable[[Sample], dict[str, float]]
"""Returns a term's rewards by name; the name of a single one is empty. Raises RewardError."""


def labels(terms: Sequence[RewardTerm]) -> list[str]:
    """Return the name of each term in the reward by function."""
    names = [term.function for term in terms]
    uses = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if use == 1 else f"{name}#{use}" for name, use in zip(names, uses, strict=True)]


def make_scorer(terms: Sequence[RewardTerm]) -> Scorer:
    """Return one function for all terms, which calls their functions in this process.

    It gives the weighted sum of their rewards. A function used more than once appears as ``name``, ``name#2``, …
    Raises ConfigError for an unknown function, and for options that are unknown, missing or wrong.
    """
    return combine_terms(terms, [in_process(load_reward(term.function, term.options)) for term in terms])


def combine_terms(terms: Sequence[RewardTerm], functions: Iterable[TermFunction]) -> Scorer:
    """Return one function for all terms, each of which ``functions`` scores."""
    prepared = [
        (label, term.weight, function) for label, term, function in zip(labels(terms), terms, functions, strict=True)
    ]

    def score(experience: Experience) -> tuple[float, dict[str, float]]:
        sample = sample_of(experience)
        rewards: dict[str, float] = {}
        parts: list[float] = []
        for label, weight, function in prepared:
            values = function(sample)
            rewards |= {f"{label}.{name}" if name else label: value for name, value in values.items()}
            parts += [weight * value for value in values.values()]
        if prepared and not parts:
            raise RewardError(f"no reward: {', '.join(label for label, _, _ in prepared)} returned None")
        return math.fsum(parts), rewards

    return score


def sample_of(experience: Experience) -> Sample:
    """Return what reward functions may see of an experience. Raises RewardError if its metadata is no JSON object."""
    return Sample(
        experience.response,
        experience.answer,
        experience.prompt,
        _metadata(experience),
        int(np.count_nonzero(experience.action_mask)),
    )


def in_process(reward: LoadedReward) -> TermFunction:
    """Return a function that calls a term's function in this process. It blocks, also for an ``async`` one."""
    if reward.is_async:
        return lambda sample: run_async(reward.call_async(sample))
    return reward.call


def _metadata(experience: Experience) -> dict[str, Any]:
    try:
        metadata = json.loads(experience.metadata)
    except (ValueError, RecursionError) as error:
        raise RewardError(f"metadata of {experience.experience_id} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise RewardError(f"metadata of {experience.experience_id} is not a JSON object")
    return metadata
