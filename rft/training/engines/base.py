"""The contract between a trainer and what computes its steps.

An engine holds a model, its optimiser and, for a KL term, a reference. It knows nothing of the log. ``torch`` computes
in the trainer's own process, ``deepspeed`` in it and further ones; what they save is the same and of whole tensors, so
that either goes on where the other stopped, with any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from rft.training.batch import StepBatch
from rft.weights.file import WeightsFile


class Engine(Protocol):
    """One trainer's model and optimiser. Calls come from one thread."""

    vocabulary: int
    """Token ids that the model knows."""
    base_digest: str | None
    """sha256 of the weights beneath the adapters; None when the model is trained whole."""

    @property
    def needs_reference(self) -> bool:
        """The algorithm compares with another model's log-probabilities."""

    def set_reference(self, folder: Path) -> str:
        """Take the model in ``folder`` as reference; the sha256 of its weights. Raises PolicyError."""

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """Take gradient step ``number`` (from 1) on ``batch``; its metrics (:mod:`rft.training.metrics`).

        A step whose gradient is not finite leaves the weights as they are; metric ``skipped`` is then 1. Neither the
        cut into micro-batches nor the number of ranks changes the gradient by more than rounding.

        Args:
            number: decides the learning rate while warming up.
            version: see :meth:`rft.training.objective.Objective.begin`.

        Raises EngineError when a rank has failed; the engine is of no use then.
        """

    def serialized(self) -> WeightsFile:
        """The weights as one safetensors file of float32: under the model's own names, adapters merged, or with
        ``weights.content = "adapters"`` these alone, under PEFT's."""

    def checkpoint_files(self) -> dict[str, bytes | memoryview]:
        """The weights as a checkpoint keeps them, by file name: the whole model, or its adapters alone."""

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state: ``<parameter>/<exp_avg|exp_avg_sq|step>``. Empty before the first step."""

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`optimizer_tensors` of any engine once returned; the weights came with the folder."""

    def check(self) -> None:
        """Raise EngineError if a rank has died since the last call. For a trainer that waits."""

    def close(self) -> None:
        """End what runs beside the trainer's process. May be called twice."""
