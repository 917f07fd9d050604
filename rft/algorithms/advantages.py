"""Advantages of whole samples: how much better a sample was than it could be expected to be.

All functions are pure: float64 rewards [B] and int group indices [B] (0 … G-1) in, float64 advantages [B] out.
Advantages by token are made in :mod:`rft.algorithms.trajectories`.
"""

from __future__ import annotations

import numpy as np

from rft.algorithms.inputs import Floats, Ints

EPSILON = 1e-6
"""Keeps the division of a nearly uniform group finite; far below any reward difference that means something."""


def ones(rewards: Floats, groups: Ints) -> Floats:
    """1 for every sample: supervised learning, where being in the batch is all the praise there is."""
    return np.ones_like(rewards)


def group_centered(rewards: Floats, groups: Ints) -> Floats:
    """``r - mean(group)``: Dr. GRPO (https://arxiv.org/abs/2503.20783), without bias towards easy or hard tasks."""
    centered: Floats = rewards - group_means(rewards, groups)[groups]
    return centered


def group_normalized(rewards: Floats, groups: Ints) -> Floats:
    """``(r - mean) / std`` of the group: GRPO (https://arxiv.org/abs/2402.03300, section 4.1.2).

    The standard deviation is the sample's (n - 1). Uniform groups and groups of one get 0.
    """
    centered = group_centered(rewards, groups)
    freedom = np.maximum(np.bincount(groups) - 1, 1)
    deviations = np.sqrt(np.bincount(groups, weights=centered * centered) / freedom)
    normalized: Floats = centered / (deviations[groups] + EPSILON)
    return normalized


def leave_one_out(rewards: Floats, groups: Ints) -> Floats:
    """``r - mean(the others of the group)``: RLOO (https://arxiv.org/abs/2402.14740). Alone: 0."""
    sizes = np.bincount(groups)
    # r - (S - r)/(n - 1) = (r - S/n) · n/(n - 1)
    scaled: Floats = group_centered(rewards, groups) * (sizes / np.maximum(sizes - 1, 1))[groups]
    return scaled


def batch_normalized(rewards: Floats, groups: Ints) -> Floats:
    """``(a - mean(batch)) / std(batch)`` of a = ``r - mean(group)``: REINFORCE++ with baseline
    (https://arxiv.org/abs/2501.03262).

    The scale is the whole batch's, so that a group of nearly equal rewards is not blown up.
    """
    return whitened(group_centered(rewards, groups))


def asymmetric(rewards: Floats, groups: Ints, *, shift: float = -0.1) -> Floats:
    """``r - (mean(group) + shift)``: AsymRE (https://arxiv.org/abs/2506.20520).

    A baseline below the mean stresses good samples over bad ones, which off-policy data needs to stay stable.
    """
    shifted: Floats = group_centered(rewards, groups) - shift
    return shifted


def log_mean_exp(rewards: Floats, groups: Ints, *, tau: float = 1.0) -> Floats:
    """``r - tau · log mean(exp(r / tau))`` over the group: the baseline of mirror descent's own partition function
    (Kimi k1.5, https://arxiv.org/abs/2501.12599)."""
    highest = np.full(groups.max() + 1, -np.inf)
    np.maximum.at(highest, groups, rewards)
    shares = group_means(np.exp((rewards - highest[groups]) / tau), groups)
    advantages: Floats = rewards - (highest + tau * np.log(shares))[groups]
    return advantages


def group_means(rewards: Floats, groups: Ints) -> Floats:
    """[G]"""
    means: Floats = np.bincount(groups, weights=rewards) / np.maximum(np.bincount(groups), 1)
    return means


def whitened(values: Floats) -> Floats:
    """Mean 0, sample deviation 1 (all 0 when all are equal)."""
    centered = values - values.mean()
    deviation = np.sqrt((centered * centered).sum() / max(len(values) - 1, 1))
    result: Floats = centered / (deviation + EPSILON)
    return result
