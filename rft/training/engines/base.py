"""Defines the contract between a trainer and what computes its steps.

An engine holds a model, its optimizer and, for a KL term, a reference. It does not know the log. The engine ``torch``
computes in the trainer's own process, ``deepspeed`` in it and in further processes. Both save whole tensors in the same
form, so each can continue where the other stopped, with any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from rft.model_files.weights_file import WeightsFile
from rft.training.batch import StepBatch


class Engine(Protocol):
    """The model and optimizer of one trainer. All calls come from one thread."""

    vocabulary: int
    """Number of token ids that the model knows."""
    base_digest: str | None
    """sha256 of the base model's weights if adapters are trained; None if the whole model is trained."""

    @property
    def needs_reference(self) -> bool:
        """True if the algorithm compares with the log-probabilities of a reference model."""

    def set_reference(self, folder: Path) -> str:
        """Load the model in ``folder`` as reference. Returns the sha256 of its weights. Raises PolicyError."""

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """Take gradient step ``number`` (from 1) on ``batch`` and return its metrics (:mod:`rft.training.metrics`).

        If the gradient is not finite, the weights stay as they are and the metric ``skipped`` is 1. The split into
        micro-batches and the number of ranks change the gradient by rounding only.

        Args:
            number: decides the learning rate (:mod:`rft.training.learning_rate`).
            version: see :meth:`rft.training.objective.Objective.begin`.

        Raises EngineError if a rank has failed. The engine cannot be used after that.
        """

    def serialized(self) -> WeightsFile:
        """Return the weights as one safetensors file in float32.

        Tensors have the model's own names, and adapters are merged. With ``weights.content = "adapters"`` the file
        holds the adapters alone, under PEFT's names.
        """

    def checkpoint_files(self) -> dict[str, bytes | memoryview]:
        """Return the weights as a checkpoint keeps them, by file name: the whole model, or its adapters alone."""

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state: ``<parameter>/<exp_avg|exp_avg_sq|step>``. Empty before the first step."""

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`optimizer_tensors` of any engine returned. The weights were loaded with the folder."""

    def check(self) -> None:
        """Raise EngineError if a rank has died since the last call. A trainer calls this while it waits."""

    def close(self) -> None:
        """End the processes that run next to the trainer's. May be called twice."""
