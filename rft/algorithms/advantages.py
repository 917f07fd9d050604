"""Advantages: how much better a sample was than its group.

All functions are pure: float64 rewards [B] and int group indices [B] (0 … G-1) in, float64 advantages [B] out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

EPSILON = 1e-6
"""Keeps the division of a nearly uniform group finite; far below any reward difference that means something."""


def ones(rewards: Floats, groups: Groups) -> Floats:
    """1 for every sample: supervised learning, where being in the batch is all the praise there is."""
    return np.ones_like(rewards)


def group_centered(rewards: Floats, groups: Groups) -> Floats:
    """``r - mean(group)``: Dr. GRPO (https://arxiv.org/abs/2503.20783), without bias towards easy or hard tasks."""
    means = np.bincount(groups, weights=rewards) / np.maximum(np.bincount(groups), 1)
    centered: Floats = rewards - means[groups]
    return centered


def group_normalized(rewards: Floats, groups: Groups) -> Floats:
    """``(r - mean) / std`` of the group: GRPO (https://arxiv.org/abs/2402.03300).

    The standard deviation is the sample's (n - 1). Uniform groups and groups of one get 0.
    """
    centered = group_centered(rewards, groups)
    freedom = np.maximum(np.bincount(groups) - 1, 1)
    deviations = np.sqrt(np.bincount(groups, weights=centered * centered) / freedom)
    normalized: Floats = centered / (deviations[groups] + EPSILON)
    return normalized
