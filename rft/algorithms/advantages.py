"""Computes one advantage for each sample: how much better it was than expected.

All functions are pure. They take float64 rewards [B] and int64 group indices [B] (0 … G-1) and return float64
advantages [B]. One that compares each named reward by itself also takes :class:`rft.algorithms.inputs.RewardTerms`.
Advantages by token are computed in :mod:`rft.algorithms.trajectories`.
"""

from __future__ import annotations

import numpy as np

from rft.algorithms.inputs import Floats, Ints, RewardTerms, needs

EPSILON = 1e-6
"""Added to standard deviations, so that dividing by that of a nearly uniform group stays finite. It is far below any
difference of rewards that matters."""


def ones(rewards: Floats, groups: Ints) -> Floats:
    """Return 1 for every sample, for losses that imitate all samples alike, such as supervised fine-tuning."""
    return np.ones_like(rewards)


def group_centered(rewards: Floats, groups: Ints) -> Floats:
    """Return ``r - mean(group)``: Dr. GRPO (https://arxiv.org/abs/2503.20783).

    Without the division by the standard deviation there is no bias towards tasks that are very easy or very hard.
    """
    centered: Floats = rewards - group_means(rewards, groups)[groups]
    return centered


def group_normalized(rewards: Floats, groups: Ints) -> Floats:
    """Return ``(r - mean(group)) / std(group)``: GRPO (https://arxiv.org/abs/2402.03300, section 4.1.2).

    The standard deviation is that of a sample (n - 1 in the denominator), plus :data:`EPSILON`. Uniform groups and
    groups of one sample get 0.
    """
    centered = group_centered(rewards, groups)
    freedom = np.maximum(np.bincount(groups) - 1, 1)
    deviations = np.sqrt(np.bincount(groups, weights=centered * centered) / freedom)
    normalized: Floats = centered / (deviations[groups] + EPSILON)
    return normalized


def leave_one_out(rewards: Floats, groups: Ints) -> Floats:
    """Return ``r - mean(other samples of the group)``: RLOO (https://arxiv.org/abs/2402.14740).

    A sample that is alone in its group gets 0.
    """
    sizes = np.bincount(groups)
    # r - (S - r)/(n - 1) = (r - S/n) · n/(n - 1)
    scaled: Floats = group_centered(rewards, groups) * (sizes / np.maximum(sizes - 1, 1))[groups]
    return scaled


def batch_normalized(rewards: Floats, groups: Ints) -> Floats:
    """Return ``(a - mean(batch)) / std(batch)`` with ``a = r - mean(group)``: REINFORCE++ with baseline
    (https://arxiv.org/abs/2501.03262).

    The scale is that of the whole batch, so small differences of rewards within a group stay small.
    """
    return whitened(group_centered(rewards, groups))


def asymmetric(rewards: Floats, groups: Ints, *, shift: float = -0.1) -> Floats:
    """Return ``r - (mean(group) + shift)``: AsymRE (https://arxiv.org/abs/2506.20520).

    A baseline below the mean gives good samples more weight than bad ones, which keeps training on off-policy data
    stable.
    """
    shifted: Floats = group_centered(rewards, groups) - shift
    return shifted


def log_mean_exp(rewards: Floats, groups: Ints, *, tau: float = 1.0) -> Floats:
    """Return ``r - tau · log mean(exp(r / tau))`` with the mean over the group.

    The baseline is ``tau · log Z`` with mirror descent's partition function Z estimated from the group (Kimi k1.5,
    https://arxiv.org/abs/2501.12599).
    """
    highest = np.full(groups.max() + 1, -np.inf)
    np.maximum.at(highest, groups, rewards)
    mean_exp = group_means(np.exp((rewards - highest[groups]) / tau), groups)
    advantages: Floats = rewards - (highest + tau * np.log(mean_exp))[groups]
    return advantages


@needs(reward_terms=True)
def reward_normalized(rewards: Floats, groups: Ints, terms: RewardTerms, *, whiten: bool = True) -> Floats:
    """Return ``Σ_k w_k · (r_k - mean(group)) / std(group)`` over the named rewards r_k, whitened over the step: GDPO
    (https://arxiv.org/abs/2601.05242).

    Normalized as one sum, rewards of different scales drown each other, and different combinations with equal sums get
    equal advantages. What no name explains is a term of its own with weight 1: ``rewards - Σ_k w_k · r_k``, such as the
    overlong penalty or a KL term in the reward. A sample without a reward of a name gets 0 for that term, and the
    others of its group are compared among themselves. Without any names and without ``whiten`` this is GRPO.
    """
    total = np.zeros_like(rewards)
    for weight, values in zip(terms.weights, terms.values.T, strict=True):
        known = ~np.isnan(values)
        total[known] += weight * group_normalized(values[known], groups[known])
    explained = np.where(np.isnan(terms.values), 0.0, terms.values) * terms.weights
    rest = rewards - explained.sum(axis=1)
    # Sums of floating-point numbers differ in their last digits, which the division by a tiny deviation would enlarge.
    rounding = 1e-9 * (np.abs(rewards) + np.abs(explained).sum(axis=1))
    total += group_normalized(np.where(np.abs(rest) > rounding, rest, 0.0), groups)
    return whitened(total) if whiten else total


def group_means(rewards: Floats, groups: Ints) -> Floats:
    """Return the mean reward of each group, float64 [G]."""
    means: Floats = np.bincount(groups, weights=rewards) / np.maximum(np.bincount(groups), 1)
    return means


def whitened(values: Floats) -> Floats:
    """Scale ``values`` to mean 0 and sample standard deviation 1. Equal values all become 0."""
    centered = values - values.mean()
    deviation = np.sqrt((centered * centered).sum() / max(len(values) - 1, 1))
    result: Floats = centered / (deviation + EPSILON)
    return result
