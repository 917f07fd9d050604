"""Takes two steps of one configuration of the matrix over an engine, and the same in float64."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rank_steps
import torch
from covering import Row
from double_steps import FAMILIES, KL, WEIGHTS, DoubleTrainer
from safetensors.torch import load

from rft.config import Config
from rft.model_files.model_folder import ADAPTER_FILE
from rft.training.batch import StepBatch
from rft.training.engines.open import open_engine

STEPS = 2
RATE = 1e-3
LORA = {"rank": 2, "alpha": 4}
FACTORS = {
    "engine": ("torch", "deepspeed"),
    "lora": ("off", "on"),
    "kl": tuple(KL),
    "family": tuple(FAMILIES),
    "updates": ("1", "2"),
}


def batch_of_step(row: Row, number: int) -> StepBatch:
    """Make groups of different sizes and lengths, with two rewards by name. Every group has a best and a worst."""
    batch = rank_steps.batch("grpo", number)
    numbers = np.random.default_rng(number)
    values = numbers.choice([0.0, 0.3, 1.0], (len(batch), len(WEIGHTS)))
    first = np.diff(batch.groups, prepend=-1) > 0
    values[first] = 2.0
    experts = first & FAMILIES[row["family"]].demonstrations
    return replace(
        batch,
        rewards=values @ np.array(list(WEIGHTS.values())),
        kinds=tuple("demonstration" if expert else "rollout" for expert in experts),
        reward_names=tuple(WEIGHTS),
        reward_values=values,
        reward_weights=np.array(list(WEIGHTS.values())),
    )


def config_of(row: Row, model: Path, teacher: Path) -> Config:
    settings: dict[str, Any] = {**FAMILIES[row["family"]].settings, **KL[row["kl"]]}
    if row["family"] == "distill" or "teacher_coef" in settings:
        settings["teacher"] = str(teacher)
    return Config(
        policy={"model": str(model)},
        rollout={"max_tokens": 8},
        algorithm=settings,
        trainer={
            "engine": row["engine"],
            "ranks": 2 if row["engine"] == "deepspeed" else 1,
            "learning_rate": RATE,
            "micro_batch_tokens": 48,
            "minibatches": int(row["updates"]),
            "lora": LORA if row["lora"] == "on" else {},
        },
    )


def take_steps(row: Row, model: Path, other: Path, found: Path) -> None:
    """Write the metrics of an engine's steps to ``metrics.json``, and the adapters it began with.

    ``other`` is the folder of the reference and of the teacher.
    """
    torch.set_num_threads(1)
    engine = open_engine(model, config_of(row, model, other))
    try:
        if engine.needs_reference:
            engine.set_reference(other)
        if row["lora"] == "on":
            (found / ADAPTER_FILE).write_bytes(engine.checkpoint_files()[ADAPTER_FILE])
        metrics = [
            engine.step(number, batch_of_step(row, number), version=number - 1) for number in range(1, STEPS + 1)
        ]
        (found / "metrics.json").write_text(json.dumps(metrics))
    finally:
        engine.close()


def expected(row: Row, model: Path, other: Path, found: Path) -> list[Mapping[str, float]]:
    """Take the same steps in float64, from the adapters that the engine began with."""
    file = found / ADAPTER_FILE
    trainer = DoubleTrainer(
        model,
        FAMILIES[row["family"]],
        row["kl"],
        reference=other,
        teacher=other,
        adapters=load(file.read_bytes()) if file.exists() else None,
        alpha_over_rank=LORA["alpha"] / LORA["rank"],
        minibatches=int(row["updates"]),
        rate=RATE,
    )
    return [trainer.step(number, batch_of_step(row, number)) for number in range(1, STEPS + 1)]
