"""The torch engine: one gradient step from a batch of samples, on one device.

The same weights, samples, configuration and thread count give the same new weights, on a CPU to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rft.algorithms.compose import compose
from rft.config import Config
from rft.training.batch import StepBatch, micro_batches
from rft.training.engines.model import TrainedModel, prepare_torch
from rft.training.objective import Objective


class TorchEngine:
    """A model with its optimiser. Weights are float32; ``dtype = "bfloat16"`` computes in bfloat16 (autocast)."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Load the model in ``folder``. Raises PolicyError when it cannot be loaded.

        Sets the process's thread count and seeds torch's random numbers.
        """
        prepare_torch(config.trainer.threads, config.run.seed)
        self.config = config.trainer
        self.objective = Objective(compose(config.algorithm))
        self._policy = TrainedModel(folder, config)
        self.model = self._policy.module
        self.device = self._policy.device
        self.vocabulary = self._policy.vocabulary
        self.base_digest = self._policy.base_digest
        self.optimizer = torch.optim.AdamW(
            self._policy.trainable,
            lr=self.config.learning_rate,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

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
        policy = self._policy
        lesson = self.objective.begin(batch, version=version, device=self.device)
        learning_rate = self._set_learning_rate(number)
        packed = policy.packs(batch, lesson.units)
        for piece in micro_batches(batch, self.config.micro_batch_tokens, lesson.units, packed=packed):
            lesson.loss(piece.to(self.device), policy.logits, policy.reference_logits).backward()
        norm = float(nn.utils.clip_grad_norm_(policy.trainable, self.config.max_grad_norm))
        skipped = not np.isfinite(norm)
        if not skipped:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        metrics = lesson.metrics() | {
            "grad_norm": 0.0 if skipped else norm,
            "skipped": float(skipped),
            "learning_rate": learning_rate,
            "step_s": time.perf_counter() - started,
        }
        return {name: value for name, value in metrics.items() if np.isfinite(value)}

    def serialized(self) -> bytes:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._policy.serialized(self.model.state_dict())

    def checkpoint_files(self) -> dict[str, bytes]:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._policy.checkpoint_files(self.model.state_dict())

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """See :class:`rft.training.engines.base.Engine`."""
        return {
            f"{name}/{kind}": value
            for name, parameter in self.model.named_parameters()
            for kind, value in self.optimizer.state.get(parameter, {}).items()
        }

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`rft.training.engines.base.Engine`."""
        self.optimizer.state.clear()
        for name, parameter in self.model.named_parameters():
            state = {
                kind: tensors[f"{name}/{kind}"].to(parameter.device, copy=True)
                for kind in ("exp_avg", "exp_avg_sq", "step")
                if f"{name}/{kind}" in tensors
            }
            if state:
                self.optimizer.state[parameter] = state

    def check(self) -> None:
        """There is no other process."""

    def close(self) -> None:
        """There is no other process."""

    def _set_learning_rate(self, number: int) -> float:
        learning_rate = learning_rate_of(number, self.config.learning_rate, self.config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate


def learning_rate_of(number: int, highest: float, warmup_steps: int) -> float:
    """Of step ``number`` (from 1): rises linearly over ``warmup_steps``."""
    return highest * min(1.0, number / max(warmup_steps, 1))
