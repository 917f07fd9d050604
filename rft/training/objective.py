"""Defines what a step minimizes, for any engine: from a batch and the models' logits to the number to differentiate.

An engine runs models and optimizers. The objective decides what they are run for::

    step = objective.begin(number, batch, version=version, device=device)
    for scores in step.scores:                                # passes without gradient, before the first update
        for micro_batch in make_micro_batches(scores.batch, max_tokens):
            scores.add(micro_batch, models, objective.value_head)
    for update in step.updates():
        for micro_batch in make_micro_batches(batch, max_tokens, update.units):
            step.loss(update, micro_batch, models).backward()
        ...                                                   # one optimizer update
    for scores in step.final_scores:                          # the same passes, after the last update
        ...

Everything that couples sequences (advantages, the weight of each token) is computed once for the whole step. So neither
the split into micro-batches nor the number of processes changes the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rft.algorithms.algorithm import Algorithm
from rft.algorithms.compose import compose
from rft.algorithms.stale_groups import algorithm_of
from rft.config import Config
from rft.training.batch import StepBatch
from rft.training.reward_weights import check_reward_terms
from rft.training.step_loss import StepLoss
from rft.training.value_head import ValueHead


class Objective:
    """An algorithm as an engine uses it, with the value head if the algorithm has one."""

    def __init__(
        self, algorithm: Algorithm, *, epochs: int = 1, minibatches: int = 1, measures_shift: bool = False
    ) -> None:
        """Make the objective of ``algorithm``.

        Args:
            epochs: that of ``[trainer]``, as ``minibatches``. Their product is the number of updates a step.
            measures_shift: some steps report how far they move the policy (:mod:`rft.training.policy_shift`).
        """
        self.algorithm = algorithm
        self.measures_shift = measures_shift
        self.epochs = epochs
        self.minibatches = minibatches
        self.value_head: ValueHead | None = None

    @classmethod
    def from_config(cls, config: Config) -> Objective:
        """Make the objective that a trainer's configuration names. Raises ConfigError."""
        algorithm = compose(algorithm_of(config), max_tokens=config.rollout.max_tokens)
        check_reward_terms(algorithm, config.processor)
        return cls(
            algorithm,
            epochs=config.trainer.epochs,
            minibatches=config.trainer.minibatches,
            measures_shift=config.trainer.max_logprob_gap is not None,
        )

    def attach(self, model: Any) -> None:
        """Make the value head of ``model`` (a transformers model) if the algorithm needs one. Raises PolicyError."""
        if self.algorithm.value_head is not None:
            self.value_head = ValueHead(model, detach=self.algorithm.value_head.detach)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the value head's parameters by name; empty without a value head.

        They are optimized at ``lr_factor`` times the policy's learning rate and saved with the optimizer's state.
        """
        if self.value_head is None:
            return {}
        return {f"value_head.{name}": parameter for name, parameter in self.value_head.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the values of :meth:`parameters`, as a checkpoint keeps them with the optimizer's state."""
        return {f"{name}/value": parameter.detach() for name, parameter in self.parameters().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the parameters to what :meth:`tensors` returned. Other entries of ``tensors`` are ignored."""
        for name, parameter in self.parameters().items():
            if f"{name}/value" in tensors:
                parameter.data.copy_(tensors[f"{name}/value"])

    @property
    def lr_factor(self) -> float:
        """Learning rate of :meth:`parameters` over that of the policy."""
        return self.algorithm.value_head.lr_factor if self.algorithm.value_head is not None else 1.0

    @property
    def needs_reference(self) -> bool:
        """Return whether the step's models must include the reference."""
        return self.algorithm.needs_reference

    @property
    def teacher(self) -> str | None:
        """Folder of the teacher's model, None if the step's models need no teacher."""
        return self.algorithm.teacher

    def begin(self, number: int, batch: StepBatch, *, version: int | None, device: torch.device) -> StepLoss:
        """Begin step ``number`` (from 1) on ``batch``.

        Args:
            version: the weight version that the policy is now, None while it is between two versions. The policy's
                log-probabilities of that version's tokens should nearly equal the sampler's (``logprob_gap_*``).
            device: where the models' logits will be.
        """
        return StepLoss(
            self.algorithm,
            number,
            batch,
            epochs=self.epochs,
            minibatches=self.minibatches,
            value_head=self.value_head,
            shift=self.measures_shift,
            version=version,
            device=device,
        )
