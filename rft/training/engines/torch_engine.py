"""Defines the torch engine: it takes a step on one device, in the trainer's own process.

On a CPU, the same weights, samples, configuration and thread count give the same new weights, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rft.config import Config
from rft.model_files.weights_file import WeightsFile
from rft.telemetry.activity import role_activity
from rft.training.batch import MicroBatch, StepBatch
from rft.training.engines.trained_model import TrainedModel, prepare_torch
from rft.training.engines.value_head_optimizer import ValueHeadOptimizer, optimizer_state, restore_optimizer_state
from rft.training.learning_rate import learning_rate_of
from rft.training.micro_batches import make_micro_batches
from rft.training.objective import Objective
from rft.training.scores import Models, Scores
from rft.training.step_loss import StepLoss


class TorchEngine:
    """See :class:`rft.training.engines.base.Engine`.

    Weights are float32. With ``dtype = "bfloat16"`` autocast computes in bfloat16.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Load the model in ``folder``. Sets the process's thread count and seeds torch's random numbers.

        Raises PolicyError if the model cannot be loaded.
        """
        prepare_torch(config.trainer.threads, config.run.seed)
        self.config = config.trainer
        self.objective = Objective.from_config(config)
        self._policy = TrainedModel(folder, config)
        self.model = self._policy.module
        self.device = self._policy.device
        self.vocabulary = self._policy.vocabulary
        self.base_digest = self._policy.base_digest
        self.objective.attach(self.model)
        if self.objective.teacher is not None:
            self._policy.set_teacher(Path(self.objective.teacher))
        self.optimizer = torch.optim.AdamW(
            self._policy.trainable,
            lr=self.config.learning_rate,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self._value_head_optimizer = ValueHeadOptimizer(self.objective, self.config)

    def set_reference(self, folder: Path) -> str:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._policy.set_reference(folder)

    @property
    def needs_reference(self) -> bool:
        """See :class:`rft.training.engines.base.Engine`."""
        return self.objective.needs_reference

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """See :class:`rft.training.engines.base.Engine`."""
        started = time.perf_counter()
        policy, objective = self._policy, self.objective
        models = Models(policy.logits, policy.reference_logits, policy.teacher_logits)
        step_loss = objective.begin(number, batch, version=version, device=self.device)
        learning_rate = learning_rate_of(number, self.config)
        self._score(step_loss.scores, models)
        norms = []
        for update in step_loss.updates():
            for micro_batch in self._micro_batches(batch, update.units):
                step_loss.loss(update, micro_batch, models).backward()
            norms.append(self._update(learning_rate))
        self._score(step_loss.final_scores, models)
        return step_metrics(step_loss, norms, learning_rate, time.perf_counter() - started)

    def serialized(self) -> WeightsFile:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._policy.serialized(self.model.state_dict())

    def checkpoint_files(self) -> dict[str, bytes | memoryview]:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._policy.checkpoint_files(self.model.state_dict())

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """See :class:`rft.training.engines.base.Engine`."""
        return (
            optimizer_state(self.optimizer, dict(self.model.named_parameters())) | self._value_head_optimizer.tensors()
        )

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`rft.training.engines.base.Engine`."""
        restore_optimizer_state(self.optimizer, dict(self.model.named_parameters()), tensors)
        self._value_head_optimizer.restore(tensors)

    def check(self) -> None:
        """Do nothing: there is no other process."""

    def close(self) -> None:
        """Do nothing: there is no other process."""

    def _score(self, tables: list[Scores], models: Models) -> None:
        for scores in tables:
            for micro_batch in self._micro_batches(scores.batch, None):
                scores.add(micro_batch, models, self.objective.value_head)

    def _micro_batches(self, batch: StepBatch, units: list[list[int]] | None) -> Iterator[MicroBatch]:
        units = [[index] for index in range(len(batch))] if units is None else units
        packed = self._policy.should_pack(batch, units)
        for micro_batch in make_micro_batches(batch, self.config.micro_batch_tokens, units, packed=packed):
            yield micro_batch.to(self.device)
            role_activity().progressed()

    def _update(self, learning_rate: float) -> float:
        """Update the weights from the gradients so far, unless their norm is not finite. Returns the norm."""
        norm = float(nn.utils.clip_grad_norm_(self._policy.trainable, self.config.max_grad_norm))
        if np.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self._value_head_optimizer.update(learning_rate)
        else:
            self._value_head_optimizer.discard_gradients()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def step_metrics(step_loss: StepLoss, norms: list[float], learning_rate: float, step_s: float) -> dict[str, float]:
    """Return the metrics of a step. Values that are not finite are left out.

    Args:
        norms: gradient norms of the updates before clipping.
        step_s: seconds that the step took.
    """
    finite = [norm for norm in norms if np.isfinite(norm)]
    metrics = step_loss.metrics() | {
        "grad_norm": sum(finite) / max(len(finite), 1),
        "skipped": 1 - len(finite) / len(norms),
        "learning_rate": learning_rate,
        "step_s": step_s,
    }
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
