"""Describes what the bits of a step depend on apart from its events, to explain a mismatch after a restart."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from rft.algorithms.stale_groups import algorithm_of
from rft.config import Config, engine_fields

_TRAINER_FIELDS = (
    "learning_rate", "warmup_steps", "learning_rate_schedule", "final_learning_rate", "betas", "weight_decay",
    "max_grad_norm", "micro_batch_tokens", "epochs", "minibatches", "threads", "device", "dtype",
)  # fmt: skip


def training_environment(config: Config) -> dict[str, Any]:
    """Return versions, machine and hyperparameters that decide the bits of a step, as plain values."""
    trainer = config.trainer.model_dump(mode="json")
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "algorithm": algorithm_of(config).model_dump(mode="json"),
        **{name: trainer[name] for name in _TRAINER_FIELDS},
        "decay_steps": config.trainer.decay_end if config.trainer.learning_rate_schedule != "constant" else None,
        **engine_fields(config.trainer),
        "content": config.weights.content,
    }


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe, for people, each value of ``before`` that differs ``now``."""
    return [f"{name} was {before[name]}, is {now.get(name)}" for name in before if before[name] != now.get(name)]
