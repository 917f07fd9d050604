"""The torch engine: one gradient step from a batch of samples, on one device.

The same weights, samples, configuration and thread count give the same new weights, on a CPU to the last bit.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from rft.algorithms.compose import Algorithm
from rft.config import TrainerConfig
from rft.policy.loading import load_model
from rft.training.batch import MicroBatch, StepBatch, micro_batches
from rft.training.objective import Objective

AMP_DTYPES = {"bfloat16": torch.bfloat16}


class TorchEngine:
    """A model with its optimiser. Weights are float32; ``dtype = "bfloat16"`` computes in bfloat16 (autocast)."""

    def __init__(self, folder: Path, config: TrainerConfig, algorithm: Algorithm, *, seed: int) -> None:
        """Load the model in ``folder``. Raises PolicyError when it cannot be loaded.

        Sets the process's thread count and seeds torch's random numbers.
        """
        prepare_torch(config.threads, seed)
        self.config = config
        self.objective = Objective(algorithm)
        self.model = load_model(folder, "float32", config.device)
        self.device: torch.device = self.model.device
        self.vocabulary: int = self.model.get_input_embeddings().num_embeddings
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._reference: nn.Module | None = None
        self._autocast = AMP_DTYPES.get(config.dtype)

    def set_reference(self, folder: Path) -> str:
        """Load the weights that the KL term compares with; their sha256. Raises PolicyError."""
        self._reference = load_model(folder, "float32", self.config.device).requires_grad_(False)
        return hashlib.sha256(serialize(self._reference)).hexdigest()

    @property
    def needs_reference(self) -> bool:
        """The algorithm has a KL term."""
        return self.objective.needs_reference

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """Take gradient step ``number`` (from 1) on ``batch`` and return its metrics (:mod:`rft.training.metrics`).

        Args:
            number: decides the learning rate while warming up.
            version: see :meth:`rft.training.objective.Objective.begin`.

        A step whose gradient is not finite leaves the weights as they are; metric ``skipped`` is then 1.
        """
        started = time.perf_counter()
        lesson = self.objective.begin(batch, version=version, device=self.device)
        learning_rate = self._set_learning_rate(number)
        for piece in micro_batches(batch, self.config.micro_batch_tokens, lesson.units):
            lesson.loss(piece.to(self.device), self._policy_logits, self._reference_logits).backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
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
        """The weights as one safetensors file."""
        return serialize(self.model)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state: ``<parameter>/<exp_avg|exp_avg_sq|step>``. Empty before the first step."""
        return {
            f"{name}/{kind}": value
            for name, parameter in self.model.named_parameters()
            for kind, value in self.optimizer.state.get(parameter, {}).items()
        }

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`optimizer_tensors` once returned; the weights came with the folder."""
        self.optimizer.state.clear()
        for name, parameter in self.model.named_parameters():
            state = {
                kind: tensors[f"{name}/{kind}"].to(parameter.device, copy=True)
                for kind in ("exp_avg", "exp_avg_sq", "step")
                if f"{name}/{kind}" in tensors
            }
            if state:
                self.optimizer.state[parameter] = state

    def _set_learning_rate(self, number: int) -> float:
        learning_rate = self.config.learning_rate * min(1.0, number / max(self.config.warmup_steps, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate

    def _policy_logits(self, batch: MicroBatch) -> Tensor:
        return self._logits(self.model, batch)

    @torch.no_grad()
    def _reference_logits(self, batch: MicroBatch) -> Tensor:
        if self._reference is None:
            raise RuntimeError("a KL term needs set_reference() first")
        return self._logits(self._reference, batch)

    def _logits(self, model: Any, batch: MicroBatch) -> Tensor:
        """float32 [N, V] at the places that predict a token to learn from."""
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits = model(input_ids=batch.inputs, use_cache=False, logits_to_keep=batch.columns).logits
        return logits.flatten(0, 1).index_select(0, batch.picks).float()


def serialize(model: nn.Module) -> bytes:
    """A model's parameters, tied ones once, as a safetensors file; the same weights give the same bytes."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    return save(tensors, {"format": "pt"})


def prepare_torch(threads: int, seed: int) -> None:
    """Make this process's torch repeatable: a fixed thread count, deterministic algorithms, seeded numbers."""
    torch.set_num_threads(threads)
    # On a GPU a few operations have no deterministic twin: there we warn, and the promise is for CPUs.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Only helps to find reads of uninitialised memory, and costs 2 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by its class
    torch.manual_seed(seed)
