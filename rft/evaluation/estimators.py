"""Estimates how good a model is from several answers to each task. Pure."""

from __future__ import annotations

import math


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Estimate the probability that at least one of ``k`` answers is right, without bias.

    Chen et al. 2021 (arXiv:2107.03374), equation 1: 1 − C(n − c, k) / C(n, k). It is computed as the product
    1 − ∏_{i = n − c + 1}^{n} (1 − k / i) of its figure 3, so that no binomial overflows.

    Args:
        samples: n, the number of answers.
        right: c, the number of right answers among them.
        k: at most ``samples``.

    Raises ValueError if k is not in 1 … n or c not in 0 … n.
    """
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@{k} of {right} right among {samples} answers is not defined")
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))


def standard_error(shares: list[float]) -> float:
    """Return the standard error of the mean over tasks: sample standard deviation / √tasks; 0 with one task or none.

    Tasks are what is drawn at random, so the answers to one task count as one draw (Miller 2024, arXiv:2411.00640:
    clustered standard errors, here with clusters of equal size).

    Args:
        shares: share of right answers of each task.
    """
    count = len(shares)
    if count < 2:
        return 0.0
    mean = sum(shares) / count
    return math.sqrt(sum((share - mean) ** 2 for share in shares) / (count - 1) / count)
