"""Adapters go with every place of a KL term, family of algorithms and number of updates a step."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import VOCABULARY, make_tiny_model, scored

from rft.config import Config
from rft.training.batch import StepBatch
from rft.training.engines.torch_engine import TorchEngine
from rft.training.sample import SampleFilter, read_sample

KL: dict[str, dict[str, Any]] = {
    "no KL": {},
    "KL in the loss": {"kl": "k3", "kl_coef": 0.1},
    "unbiased KL": {"kl": "k1", "kl_coef": 0.1, "kl_unbiased": True},
    "KL in the reward": {"kl": "k1", "kl_coef": 0.1, "kl_in": "reward"},
}
FAMILIES = ("grpo", "ppo", "reinforce_pp", "decoupled_ppo", "gspo", "opmd", "dpo", "kto", "distill")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def batch() -> StepBatch:
    wanted = SampleFilter(VOCABULARY, "policy")
    return StepBatch.from_samples([read_sample(0, 0, scored(g, s, 4), wanted) for g in range(3) for s in range(4)])


def engine_of(model: Path, algorithm: dict[str, Any], **trainer: Any) -> TorchEngine:
    engine = TorchEngine(model, Config(policy={"model": str(model)}, trainer=trainer, algorithm=algorithm))
    if engine.needs_reference:
        engine.set_reference(model)
    return engine


@pytest.mark.parametrize("rank", [0, 2])
def test_the_value_head_learns_from_the_policys_states_and_not_from_the_references(
    model: Path, batch: StepBatch, rank: int
) -> None:
    """A KL term of coefficient 0 runs the reference and changes nothing. With adapters that is the policy's model."""
    heads = []
    for kl in ({}, {"kl": "k2", "kl_coef": 0.0}):
        engine = engine_of(model, {"name": "ppo", **kl}, learning_rate=0.05, lora={"rank": rank})
        metrics = [engine.step(number, batch, version=0) for number in range(1, 5)]
        heads.append(([(one["value_loss"], one["value_crc32"]) for one in metrics], engine.serialized().sha256))
    assert heads[0] == heads[1]


@pytest.mark.parametrize(
    ("family", "kl", "rank", "minibatches"),
    [
        (family, kl, (place + other) % 2 * 2, 1 + (place + other // 2) % 2)
        for (place, family), (other, kl) in itertools.product(enumerate(FAMILIES), enumerate(KL))
    ],
)
def test_the_split_into_micro_batches_changes_no_step(
    model: Path, batch: StepBatch, family: str, kl: str, rank: int, minibatches: int
) -> None:
    """Each pair of family and KL term, with and without adapters and further updates in turn."""
    algorithm = {"name": family, **KL[kl]} | ({"teacher": str(model)} if family == "distill" else {})
    results = []
    for size in (10_000, 20):
        trainer = {"lora": {"rank": rank}, "minibatches": minibatches, "micro_batch_tokens": size}
        engine = engine_of(model, algorithm, learning_rate=1e-3, **trainer)
        metrics = [engine.step(number, batch, version=0) for number in (1, 2)]
        assert all(one["skipped"] == 0 for one in metrics)
        assert all(math.isfinite(value) for one in metrics for value in one.values())
        results.append((metrics[-1]["loss"], engine.serialized().tensors()))
    (whole, expected), (split, found) = results
    assert split == pytest.approx(whole, rel=1e-3, abs=1e-5)
    assert all(torch.allclose(tensor, found[name], atol=1e-4) for name, tensor in expected.items())
