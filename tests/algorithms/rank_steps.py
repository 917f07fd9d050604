"""Takes the same steps in one process and over DeepSpeed's ranks, for any algorithm.

It needs a process of its own, because DeepSpeed keeps global state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthetic import VOCABULARY

from benchmarks.lab import Task, Written, batch_of
from rft.config import Config
from rft.training.batch import StepBatch
from rft.training.engines.open import open_engine

STEPS = 2
RATE = 1e-3
KINDS = {
    "sft": ("demonstration",),
    "dpo": ("preference",),
    "mix": ("rollout", "rollout", "demonstration"),
    "chord": ("rollout", "rollout", "demonstration"),
}
"""Kinds of the groups of a step, repeated. Algorithms that are not named here learn from rollouts."""
FIELDS: dict[str, dict[str, Any]] = {
    "reinforce_pp": {"kl": "k1", "kl_coef": 0.1, "kl_in": "reward"},
    "grpo": {"kl": "k3", "kl_coef": 0.1, "entropy_coef": 0.01},
    "decoupled_ppo": {"correction_high": 3.0},
    "dapo": {"overlong_buffer": 2, "token_filter": "high_entropy", "token_filter_options": {"share": 0.7}},
    "ppo": {"kl": "k2", "kl_coef": 0.1},
    "rloo": {"kl": "k1", "kl_coef": 0.1, "kl_unbiased": True},
    "cispo": {"rejection": "geometric", "rejection_low": 0.3, "off_policy_mask": 0.5},
    "reinforce_pp_baseline": {"loss": "kl_cov", "loss_options": {"share": 0.2}},
}
TRAINER: dict[str, dict[str, Any]] = {"ppo": {"lora": {"rank": 2}}}
"""With adapters the reference is the policy's own model, run without them."""
SEVERAL = ("gspo", "cispo", "sapo", "ppo", "decoupled_ppo")
"""Algorithms with two updates a step. With one update, their ratios are those to the sampler alone."""


def compare(model: Path, teacher: Path, name: str, found: Path) -> None:
    """Write each engine's result as ``<engine>.json`` (metrics of each step) and ``<engine>.safetensors``."""
    torch.set_num_threads(1)
    for engine, trainer in (("torch", {}), ("deepspeed", {"ranks": 2, "zero_stage": 2})):
        config = Config(
            policy={"model": str(model)},
            rollout={"max_tokens": 8},
            algorithm={"name": name, **FIELDS.get(name, {})} | ({"teacher": str(teacher)} if name == "distill" else {}),
            trainer={
                "engine": engine, "learning_rate": RATE, "micro_batch_tokens": 48,
                "learning_rate_schedule": "cosine", "decay_steps": STEPS, "minibatches": 2 if name in SEVERAL else 1,
                **TRAINER.get(name, {}), **trainer,
            },
        )  # fmt: skip
        opened = open_engine(model, config)
        try:
            if opened.needs_reference:
                opened.set_reference(teacher)
            metrics = [opened.step(number, batch(name, number), version=0) for number in range(1, STEPS + 1)]
            (found / f"{engine}.safetensors").write_bytes(opened.serialized().data)
        finally:
            opened.close()
        metrics = [{key: value for key, value in one.items() if not key.endswith("_s")} for one in metrics]
        (found / f"{engine}.json").write_text(json.dumps(metrics))


def batch(name: str, number: int) -> StepBatch:
    """Make groups of different sizes and lengths. The rewards of some are all equal."""
    numbers = np.random.default_rng([number, len(name)])
    kinds = KINDS.get(name, ("rollout",))
    written = []
    for group in range(7):
        kind = kinds[group % len(kinds)]
        task = Task(tuple(numbers.integers(2, VOCABULARY, int(numbers.integers(2, 6))).tolist()), ())
        size = {"preference": 2, "demonstration": 1}.get(kind, int(numbers.integers(2, 6)))
        for member in range(size):
            length = int(numbers.integers(1, 9))
            reward = 1.0 - member if kind == "preference" else float(numbers.integers(0, 2))
            tokens = numbers.integers(0, VOCABULARY, length).tolist()
            logprobs = numbers.uniform(-4.0, -1.5, length).tolist()
            written.append(Written(task, group, tokens, logprobs, reward, kind))
    return batch_of(written)
