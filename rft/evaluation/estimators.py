"""What several answers to one task say about a model. Pure."""

from __future__ import annotations

import math


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that at least one of ``k`` answers is right, estimated without bias from ``samples`` of them.

    Chen et al. 2021 (arXiv:2107.03374), equation 1: 1 − C(n − c, k) / C(n, k), as the product
    1 − ∏_{i = n − c + 1}^{n} (1 − k / i) of its figure 3, which no large binomial enters.

    Args:
        samples: n, answers of which ``right`` (c) are right.
        k: at most ``samples``.

    Raises ValueError when k is not in 1 … n or c not in 0 … n.
    """
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@{k} of {right} right among {samples} answers is not defined")
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))


def standard_error(shares: list[float]) -> float:
    """Of the mean over tasks: sample standard deviation / √tasks; 0 with fewer than two tasks.

    The tasks are what is drawn at random, so answers to one task count as one draw (Miller 2024, arXiv:2411.00640:
    clustered standard errors, here with equal clusters).
    """
    count = len(shares)
    if count < 2:
        return 0.0
    mean = sum(shares) / count
    return math.sqrt(sum((share - mean) ** 2 for share in shares) / (count - 1) / count)
