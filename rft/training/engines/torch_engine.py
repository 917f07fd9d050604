"""The torch engine: one gradient step from a batch of samples, on one device.

The same weights, samples, configuration and thread count give the same new weights, on a CPU to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rft.config import Config
from rft.training.batch import MicroBatch, StepBatch, micro_batches
from rft.training.engines.model import TrainedModel, prepare_torch
from rft.training.engines.value_head_optimizer import ValueHeadOptimizer, optimizer_state, restore_optimizer_state
from rft.training.objective import Models, Objective, StepLoss
from rft.weights.file import WeightsFile


class TorchEngine:
    """A model with its optimiser. Weights are float32; ``dtype = "bfloat16"`` computes in bfloat16 (autocast)."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Load the model in ``folder``. Raises PolicyError when it cannot be loaded.

        Sets the process's thread count and seeds torch's random numbers.
        """
        prepare_torch(config.trainer.threads, config.run.seed)
        self.config = config.trainer
        self.objective = Objective.of(config)
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
        self._beside = ValueHeadOptimizer(self.objective, self.config)

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
        lesson = objective.begin(number, batch, version=version, device=self.device)
        learning_rate = learning_rate_of(number, self.config.learning_rate, self.config.warmup_steps)
        for scores in lesson.scores:
            for piece in self._pieces(scores.batch, None):
                scores.add(piece, models, objective.value_head)
        norms = []
        for update in lesson.updates():
            for piece in self._pieces(batch, update.units):
                lesson.loss(update, piece, models).backward()
            norms.append(self._update(learning_rate))
        return step_metrics(lesson, norms, learning_rate, time.perf_counter() - started)

    def serialized(self) -> WeightsFile:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._policy.serialized(self.model.state_dict())

    def checkpoint_files(self) -> dict[str, bytes | memoryview]:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._policy.checkpoint_files(self.model.state_dict())

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """See :class:`rft.training.engines.base.Engine`."""
        return optimizer_state(self.optimizer, dict(self.model.named_parameters())) | self._beside.tensors()

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`rft.training.engines.base.Engine`."""
        restore_optimizer_state(self.optimizer, dict(self.model.named_parameters()), tensors)
        self._beside.restore(tensors)

    def check(self) -> None:
        """There is no other process."""

    def close(self) -> None:
        """There is no other process."""

    def _pieces(self, batch: StepBatch, units: list[list[int]] | None) -> Iterator[MicroBatch]:
        units = [[index] for index in range(len(batch))] if units is None else units
        packed = self._policy.packs(batch, units)
        for piece in micro_batches(batch, self.config.micro_batch_tokens, units, packed=packed):
            yield piece.to(self.device)

    def _update(self, learning_rate: float) -> float:
        """One optimiser update from the gradients so far; their norm. One that is not finite leaves all as it is."""
        norm = float(nn.utils.clip_grad_norm_(self._policy.trainable, self.config.max_grad_norm))
        if np.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self._beside.update(learning_rate)
        else:
            self._beside.forget()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def learning_rate_of(number: int, highest: float, warmup_steps: int) -> float:
    """Of step ``number`` (from 1): rises linearly over ``warmup_steps``."""
    return highest * min(1.0, number / max(warmup_steps, 1))


def step_metrics(lesson: StepLoss, norms: list[float], learning_rate: float, step_s: float) -> dict[str, float]:
    """Metrics of a step whose updates had gradients of these ``norms``; what is not finite is left out."""
    finite = [norm for norm in norms if np.isfinite(norm)]
    metrics = lesson.metrics() | {
        "grad_norm": sum(finite) / max(len(finite), 1),
        "skipped": 1 - len(finite) / len(norms),
        "learning_rate": learning_rate,
        "step_s": step_s,
    }
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
