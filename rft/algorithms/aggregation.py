"""Weighs the token losses of a batch so that their weighted sum is the loss.

All functions are pure. They take the action-token counts [B] of all sequences of one optimizer update and return
float64 weights [B], one for each token of that sequence. The loss is ``sum(weight · token loss)``, however the batch is
split into micro-batches. Sequences without action tokens do not count.

A sample of several rows is one sequence here. Its count is the mean of its rows' counts, which need not be whole, or
their sum (``algorithm.row_weight``). Otherwise counts are int64.
"""

from __future__ import annotations

import numpy as np

from rft.algorithms.inputs import Floats, Ints

Counts = Ints | Floats


def token_mean(counts: Counts) -> Floats:
    """Average over all tokens, so that long sequences weigh more: DAPO (https://arxiv.org/abs/2503.14476, equation
    12)."""
    return np.full(len(counts), 1.0 / max(float(counts.sum()), 1.0))


def sequence_mean(counts: Counts) -> Floats:
    """Average over the tokens of each sequence, then over sequences: GRPO (https://arxiv.org/abs/2402.03300, equation
    3)."""
    weights: Floats = 1.0 / (np.maximum(counts, 1) * float(_sequences(counts)))
    return weights


def sequence_sum(counts: Counts, *, length: int = 1) -> Floats:
    """Sum over the tokens of each sequence, divide by the constant ``length``, average over sequences: Dr. GRPO
    (https://arxiv.org/abs/2503.20783).

    A token weighs the same in a short sequence and in a long one.
    """
    return np.full(len(counts), 1.0 / (length * float(_sequences(counts))))


def _sequences(counts: Counts) -> int:
    return max(int((counts > 0).sum()), 1)
