"""How token losses become one number: a weight for the tokens of each sequence.

Weights are made from the whole step's batch, so that the loss is ``sum(weight · token loss)`` however the batch is
cut into micro-batches. Pure functions: int action-token counts [B] in, float64 weights [B] (for each token of
that sequence) out. Sequences without action tokens count for nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def token_mean(counts: Counts) -> Floats:
    """Every token counts the same: long sequences weigh more (DAPO, https://arxiv.org/abs/2503.14476)."""
    return np.full(len(counts), 1.0 / max(int(counts.sum()), 1))


def sequence_mean(counts: Counts) -> Floats:
    """Every sequence counts the same: the mean over sequences of the mean over their tokens (GRPO)."""
    sequences = max(int((counts > 0).sum()), 1)
    weights: Floats = 1.0 / (np.maximum(counts, 1) * float(sequences))
    return weights
