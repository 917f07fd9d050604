"""How token losses become one number: a weight for the tokens of each sequence.

Weights are made from the whole update's batch, so that the loss is ``sum(weight · token loss)`` however the batch is
cut into micro-batches. Pure functions: int action-token counts [B] in, float64 weights [B] (for each token of
that sequence) out. Sequences without action tokens count for nothing.
"""

from __future__ import annotations

import numpy as np

from rft.algorithms.inputs import Floats, Ints


def token_mean(counts: Ints) -> Floats:
    """Every token counts the same: long sequences weigh more (DAPO, https://arxiv.org/abs/2503.14476, equation 12)."""
    return np.full(len(counts), 1.0 / max(int(counts.sum()), 1))


def sequence_mean(counts: Ints) -> Floats:
    """Every sequence counts the same: the mean over sequences of the mean over their tokens (GRPO,
    https://arxiv.org/abs/2402.03300, equation 3)."""
    weights: Floats = 1.0 / (np.maximum(counts, 1) * float(_sequences(counts)))
    return weights


def sequence_sum(counts: Ints, *, length: int = 1) -> Floats:
    """The mean over sequences of the sum over their tokens, divided by a constant ``length``: Dr. GRPO
    (https://arxiv.org/abs/2503.20783), where no token weighs less because its sequence is long."""
    return np.full(len(counts), 1.0 / (length * float(_sequences(counts))))


def _sequences(counts: Ints) -> int:
    return max(int((counts > 0).sum()), 1)
