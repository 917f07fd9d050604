"""What a step minimises: from a batch and a model's logits to the number to differentiate, for any engine.

An engine cuts a step's batch into micro-batches, runs the model over each, and differentiates what
:meth:`Lesson.loss` makes of its logits. All that couples sequences (advantages, the weight of each token) is made
once for the whole step, so that neither the cut nor the number of processes changes the sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rft.algorithms.compose import Algorithm
from rft.training.batch import MicroBatch, StepBatch
from rft.training.metrics import TokenTotals

Forward = Callable[[MicroBatch], Tensor]
"""Runs a model: float32 logits [N, V] at the places that predict a micro-batch's tokens to learn from, as the model
gives them (no temperature applied). The policy's carry a gradient, those of other models none."""


class Objective:
    """An algorithm as an engine uses it."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    @property
    def needs_reference(self) -> bool:
        """Whether :meth:`Lesson.loss` must be given a reference model: there is a KL term."""
        return self.algorithm.kl is not None

    def begin(self, batch: StepBatch, *, version: int | None, device: torch.device) -> Lesson:
        """What step ``batch`` teaches.

        Args:
            version: the weight version that the policy is now, None while it is between two versions; tokens of that
                version must have nearly the sampler's log-probabilities (``logprob_gap_*``).
            device: where the model's logits will be.
        """
        return Lesson(self.algorithm, batch, version, device)


class Lesson:
    """One step's part of the objective. All ranks make the same one; each computes its share of the micro-batches."""

    def __init__(self, algorithm: Algorithm, batch: StepBatch, version: int | None, device: torch.device) -> None:
        self._algorithm = algorithm
        self._batch = batch
        advantages = algorithm.advantages(batch.rewards, batch.groups)
        weights = algorithm.token_weights(batch.counts)
        # Without a KL term a sample of no advantage has no gradient: most of a step, once groups become uniform.
        self.units = [[i] for i in range(len(batch)) if algorithm.kl is not None or advantages[i] != 0]
        """Sequences to compute, as :func:`rft.training.batch.cut` wants them."""
        self._advantages = torch.from_numpy(np.repeat(advantages, batch.counts)).float().to(device)
        self._weights = torch.from_numpy(np.repeat(weights, batch.counts)).float().to(device)
        self._temperatures = torch.from_numpy(np.where(batch.temperatures == 0, 1.0, batch.temperatures)).to(device)
        self._advantage_abs_mean = float(np.abs(advantages).mean())
        self._totals = TokenTotals(version)

    def loss(self, batch: MicroBatch, policy: Forward, reference: Forward | None = None) -> Tensor:
        """This micro-batch's share of the step's loss: scalar, the shares sum to the loss."""
        algorithm = self._algorithm
        distribution = self._distribution(policy(batch), batch)
        logprobs = _of_targets(distribution, batch)
        token = algorithm.token_loss(logprobs, batch.behaviour, self._advantages[batch.tokens])
        loss, estimates = token.loss, None
        if algorithm.kl is not None:
            if reference is None:
                raise RuntimeError("a KL term needs a reference model")
            with torch.no_grad():
                old = _of_targets(self._distribution(reference(batch), batch), batch)
            estimates = algorithm.kl(logprobs, old)
            loss = loss + algorithm.kl_coef * estimates
        total = (loss * self._weights[batch.tokens]).sum()
        self._totals.add(batch, token, logprobs.detach(), distribution.detach(), float(total.detach()), estimates)
        return total

    def totals(self) -> TokenTotals:
        """Sums over the micro-batches so far, to be added up over ranks."""
        return self._totals

    def metrics(self) -> dict[str, float]:
        """The objective's part of the step's metrics (:mod:`rft.training.metrics`), when all losses are computed."""
        batch = self._batch
        return self._totals.metrics() | {
            "reward_mean": float(batch.rewards.mean()),
            "reward_std": float(batch.rewards.std()),
            "advantage_abs_mean": self._advantage_abs_mean,
            "tokens": float(sum(len(payload.tokens) for payload in batch.payloads)),
            "groups": float(len(np.unique(batch.groups))),
            "experiences": float(len(batch)),
        }

    def _distribution(self, logits: Tensor, batch: MicroBatch) -> Tensor:
        """Log-probabilities [N, V] as the sampler took them: after division by its temperature."""
        temperatures = self._temperatures[batch.members][batch.sequences].float()
        return torch.log_softmax(logits / temperatures[:, None], dim=-1)


def _of_targets(distribution: Tensor, batch: MicroBatch) -> Tensor:
    return distribution.gather(-1, batch.targets[:, None]).squeeze(-1)
