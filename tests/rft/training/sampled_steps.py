"""Takes steps on what a real sampler writes: with the weights that it stamps, or with old ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import VOCABULARY

from benchmarks.lab import Lab, Task, Written, batch_of
from rft.training.batch import StepBatch

GROUPS, SAMPLES, LENGTH = 8, 4, 8


def lab_of(model: Path) -> Lab:
    """Return tasks of random prompts. The reward is the share of even tokens."""
    numbers = np.random.default_rng(0)
    prompts = [tuple(numbers.integers(2, VOCABULARY, 3).tolist()) for _ in range(64)]
    return Lab(
        model=model,
        train=[Task(prompt, ()) for prompt in prompts],
        held_out=[],
        reward=lambda task, tokens: float(np.mean(np.array(tokens) % 2 == 0)),
        end_tokens=frozenset({1}),
        max_tokens=LENGTH,
        groups=GROUPS,
        samples=SAMPLES,
    )


def stamped(written: list[Written], version: int) -> StepBatch:
    """Return the batch of one step whose tokens claim to be of weight version ``version``."""
    batch = batch_of(written)
    payloads = [
        replace(payload, versions=np.where(payload.action_mask == 1, version, -1).astype(np.int32))
        for payload in batch.payloads
    ]
    return replace(batch, payloads=payloads)


def steps(
    lab: Lab, *, lag: int, ignores_updates: bool, count: int, algorithm: Mapping[str, Any], **trainer: Any
) -> Iterator[dict[str, float]]:
    """Yield the metrics of ``count`` steps. Each step's samples are stamped with the version ``lag`` before its own.

    Args:
        ignores_updates: the sampler keeps the initial weights, and stamps as if it had taken the newer ones.
    """
    engine = lab.engine(dict(algorithm), trainer)
    initial = copy.deepcopy(engine.model)
    waiting = [stamped(lab.write(engine.model, lab.tasks(n), SAMPLES, 1.0, seed=n), 0) for n in range(lag)]
    for number in range(1, count + 1):
        sampler = initial if ignores_updates else engine.model
        written = lab.write(sampler, lab.tasks(number + lag), SAMPLES, 1.0, seed=number + lag)
        waiting.append(stamped(written, number - 1))
        yield engine.step(number, waiting.pop(0), version=number - 1)
