"""Measures how far one step moves the policy: log-probabilities of the same few tokens before and after it.

Samples of older weights differ from the trainer's by about this much a step. A larger distance has another cause
(:mod:`rft.training.logprob_gap`).
"""

from __future__ import annotations

import numpy as np
import torch

from rft.training.batch import StepBatch
from rft.training.scores import Scores

SEQUENCES = 4
"""Sequences that are run once more before and after a step."""
FIRST, EVERY = 4, 8
"""The first steps are measured, and then each eighth. Of a step of 128 answers of 6 tokens by a model of 0.4 M
parameters, both passes take a sixth of the time; of larger ones less."""


def measures_shift(trained: int) -> bool:
    """Return whether the shift of a policy's training step is measured, the ``trained``-th (from 1)."""
    return trained <= FIRST or trained % EVERY == 0


class PolicyShift:
    """The scores of a few sequences before and after a step."""

    def __init__(self, batch: StepBatch, device: torch.device) -> None:
        """Choose sequences at equal distances, so that a redone step has the same."""
        indices = np.unique(np.linspace(0, len(batch) - 1, SEQUENCES).round().astype(np.int64))
        few = batch.of_sequences(indices)
        names = frozenset({"policy"})
        self.before = Scores(few, names, device)
        self.after = Scores(few, names, device)

    def mean(self) -> float:
        """Return the mean absolute difference, in nats. Both must have been scored."""
        difference = self.after.tables["policy"] - self.before.tables["policy"]
        return float(difference.abs().double().mean())
