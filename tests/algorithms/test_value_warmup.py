"""In the warm-up of a value head the policy stays as it is. Later steps are as if its optimizer had just begun."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import matrix_steps
import papers
import pytest
import torch
from brokers import require_deepspeed
from random_steps import random_case, run, written_out
from synthetic import make_tiny_model

from rft.algorithms.compose import compose
from rft.config import AlgorithmConfig
from rft.errors import ConfigError
from rft.training.engines.open import open_engine
from rft.training.engines.torch_engine import TorchEngine

ROW = {"engine": "torch", "lora": "off", "kl": "none", "family": "ppo, warmed up", "updates": "2"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def engine_of(model: Path, value_warmup: int) -> TorchEngine:
    config = matrix_steps.config_of(ROW, model, model)
    algorithm = config.algorithm.model_copy(update={"value_warmup": value_warmup})
    return TorchEngine(model, config.model_copy(update={"algorithm": algorithm}))


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_value_loss_and_the_policy_has_no_gradient(seed: int) -> None:
    case = random_case(seed)
    settings = {"name": "ppo", "kl": "k3", "kl_coef": 0.02, "kl_in": "reward", "entropy_coef": 0.1, "value_warmup": 3}
    result = run(case, number=3, **settings)
    step, leaves = written_out(case)
    loss = papers.value_loss(step, 0.02)
    loss.backward()
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, gradient in result.gradients.items():
        if name.startswith("value_head"):
            assert gradient.numpy() == pytest.approx(leaves[name].grad.numpy(), rel=1e-4, abs=1e-6)
        else:
            assert not gradient.any()
    assert run(case, number=4, **settings).gradients["hidden"].any()


def test_the_policys_optimizer_begins_after_the_warm_up(model: Path) -> None:
    """Two updates a step: the head has taken six of them after the third step, the policy two."""
    warmed = engine_of(model, 2)
    before = warmed.serialized().sha256
    for number in (1, 2):
        metrics = warmed.step(number, matrix_steps.batch_of_step(ROW, number), version=0)
        assert metrics["grad_norm"] == 0
        assert metrics["value_loss"] > 0
        assert metrics["value_warmup"] == 1
    assert warmed.serialized().sha256 == before
    assert {name.partition(".")[0] for name in warmed.optimizer_tensors()} == {"value_head"}
    assert "value_warmup" not in warmed.step(3, matrix_steps.batch_of_step(ROW, 3), version=0)
    steps = {name: float(tensor) for name, tensor in warmed.optimizer_tensors().items() if name.endswith("/step")}
    assert {count for name, count in steps.items() if name.startswith("model.")} == {2.0}
    assert {count for name, count in steps.items() if name.startswith("value_head.")} == {6.0}


@pytest.mark.parametrize("restart_after", [1, 2, 3])
def test_a_restored_engine_continues_bit_for_bit(model: Path, tmp_path: Path, restart_after: int) -> None:
    straight, interrupted = engine_of(model, 2), engine_of(model, 2)
    for number in range(1, 5):
        expected = straight.step(number, matrix_steps.batch_of_step(ROW, number), version=0)
        found = interrupted.step(number, matrix_steps.batch_of_step(ROW, number), version=0)
        if number == restart_after:
            tensors = {name: tensor.clone() for name, tensor in interrupted.optimizer_tensors().items()}
            (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
            (tmp_path / "model.safetensors").write_bytes(interrupted.serialized().data)
            interrupted = engine_of(tmp_path, 2)
            interrupted.restore_optimizer(tensors)
    assert interrupted.serialized().sha256 == straight.serialized().sha256
    assert (found["loss"], found["value_crc32"]) == (expected["loss"], expected["value_crc32"])


def go_on_over_ranks(model: Path, found: Path) -> None:
    """Warm up in one process, go on over ranks, and write the metrics of each step."""
    torch.set_num_threads(1)
    config = matrix_steps.config_of(ROW, model, model)
    alone = open_engine(model, config)
    metrics = [alone.step(1, matrix_steps.batch_of_step(ROW, 1), version=0)]
    tensors = {name: tensor.clone() for name, tensor in alone.optimizer_tensors().items()}
    ranks = open_engine(model, matrix_steps.config_of(ROW | {"engine": "deepspeed"}, model, model))
    try:
        ranks.restore_optimizer(tensors)
        held = ranks.optimizer_tensors()
        assert held.keys() == tensors.keys()
        assert all(torch.equal(held[name], tensor) for name, tensor in tensors.items())
        metrics.append(ranks.step(2, matrix_steps.batch_of_step(ROW, 2), version=0))
    finally:
        ranks.close()
    (found / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.deepspeed
def test_ranks_go_on_from_the_warm_up_of_one_process(model: Path, tmp_path: Path) -> None:
    require_deepspeed()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deepspeed", "rft.training.engines.open"])
    process = context.Process(target=go_on_over_ranks, args=(model, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for found, wanted in zip(metrics, matrix_steps.expected(ROW, model, model, tmp_path), strict=True):
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_only_an_algorithm_with_a_value_head_has_a_warm_up() -> None:
    with pytest.raises(ConfigError, match="'grpo' has no value head to warm up"):
        compose(AlgorithmConfig(value_warmup=1))
