"""Runs an algorithm's functions on two samples, so that a faulty one is found before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rft.algorithms.algorithm import Algorithm
from rft.algorithms.inputs import RewardTerms, Sequences, TokenBatch, Trajectories, Turns
from rft.algorithms.token_filters import StepTokens
from rft.config import AlgorithmConfig
from rft.errors import ConfigError
from rft.plugins import USER_FAILURES


def try_algorithm(config: AlgorithmConfig, algorithm: Algorithm) -> None:
    """Call each function on a group of two samples of one token.

    Raises ConfigError that names the function if it fails or does not return one number for each sample.
    """
    rewards, groups = np.array([1.0, 0.0]), np.array([0, 0])
    zeros, each = torch.zeros(2), torch.arange(2)
    tokens = TokenBatch(
        logprobs=zeros - 1,
        old=zeros - 1,
        advantages=zeros + 1,
        sequences=each,
        rewards=torch.tensor([1.0, 0.0]),
        groups=torch.zeros(2).long(),
        reference=zeros - 1,
        entropy=zeros + 1,
        covariance_rank=each / 2,
        demonstrated=each == 1,
    )
    counts, flags = np.array([1, 1]), np.array([False, False])
    each_one = np.array([0, 1])
    turns = Turns(each_one, each_one, counts, rewards=np.array([np.nan, 0.5]), states=np.array([0, 0]))
    nothing = np.zeros(2)
    trajectories = Trajectories(rewards, groups, each_one, counts, nothing, nothing, nothing, nothing, turns)
    calls: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
        ("loss", lambda value: algorithm.loss(value).loss, (tokens,)),
        ("aggregation", algorithm.token_weights, (counts,)),
        *(("filters", select, (Sequences(rewards, groups, counts, flags),)) for select in algorithm.filters),
    ]
    if algorithm.token_filter is not None:
        step_tokens = StepTokens(np.ones(2), -np.ones(2), np.ones(2), 1)
        calls.append(("token_filter", algorithm.token_filter, (step_tokens,)))
    if algorithm.kl is not None:
        calls.append(("kl", algorithm.kl, (zeros - 1, zeros - 1)))
    if algorithm.advantages is not None:
        terms = RewardTerms(("one", "two"), np.array([[1.0, 0.0], [0.0, np.nan]]), np.ones(2))
        extra = (terms,) if algorithm.needs.reward_terms else ()
        calls.append(("advantage", algorithm.advantages, (rewards, groups, *extra)))
    if algorithm.token_advantages is not None:
        calls.append(("advantage", algorithm.token_advantages, (trajectories,)))
    for field, function, arguments in calls:
        name = getattr(config, field) or f"of {config.name}"
        # A plugin may raise anything.
        try:
            result = function(*arguments)
        except USER_FAILURES as error:
            raise ConfigError(
                f"algorithm.{field} ({name}) fails on two samples of one token: {type(error).__name__}: {error}"
            ) from error
        values = getattr(result, "advantages", result)
        shape = tuple(getattr(values, "shape", ()))
        if shape != (2,):
            raise ConfigError(
                f"algorithm.{field} ({name}) must return one number for each of two, it returned "
                f"{type(values).__name__} of shape {shape}"
            )
