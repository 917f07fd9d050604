"""Select the tokens that the policy's loss is computed on, over all tokens of a step.

All functions are pure. They take one :class:`StepTokens` and return which of its M tokens stay, bool [M]. The others
have no part in the loss, but count in the divisor of its mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rft.algorithms.inputs import Flags, Floats


@dataclass(frozen=True, slots=True, eq=False)
class StepTokens:
    """The M tokens of a step that rollouts wrote and no filter left out."""

    advantages: Floats
    """[M]"""
    policy: Floats
    """[M]: log-probabilities of the policy as the step began."""
    entropy: Floats
    """[M]: entropy in nats of the policy at the token, as the step began."""
    number: int
    """The step, from 1. It seeds random choices, so that a redone step makes the same."""


def high_entropy(tokens: StepTokens, *, share: float = 0.2) -> Flags:
    """Select the ``share`` of tokens with the highest entropy (https://arxiv.org/abs/2506.01939, section 5).

    The threshold is the quantile ``1 - share`` of the step's entropies. Such tokens are forks, where answers part.
    """
    selected: Flags = tokens.entropy >= np.quantile(tokens.entropy, 1 - share)
    return selected


def clip_cov(tokens: StepTokens, *, share: float = 2e-4, low: float = 1.0, high: float = 5.0) -> Flags:
    """Select all but some random tokens with a covariance within [low, high]: Clip-Cov
    (https://arxiv.org/abs/2505.22617, section 4.2).

    As many are left out as ``share`` of all tokens, at least one. Tokens of a high covariance between advantage and
    log-probability are those that lower the policy's entropy most.
    """
    covariance = covariances(tokens.advantages, tokens.policy)
    candidates = np.flatnonzero((covariance >= low) & (covariance <= high))
    count = min(max(int(share * len(covariance)), 1), len(candidates))
    selected = np.ones(len(covariance), dtype=np.bool_)
    selected[np.random.default_rng([tokens.number, len(covariance)]).choice(candidates, count, replace=False)] = False
    return selected


def covariances(advantages: Floats, logprobs: Floats) -> Floats:
    """Return ``(A - mean) · (log π - mean)`` of each token, float64 [M] (https://arxiv.org/abs/2505.22617, section
    4.2)."""
    result: Floats = (advantages - advantages.mean()) * (logprobs - logprobs.mean())
    return result


def descending_ranks(values: Floats) -> Floats:
    """Return the share of values that come before each in descending order, float64 [M] in [0, 1)."""
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values)) / max(len(values), 1)
    return ranks
