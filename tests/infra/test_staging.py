"""A stage starts from the model that the last one made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infra.launcher.folder import REPORT
from infra.launcher.staging import one_stage
from rft.config import Config
from rft.lora.base_model import merged_weights
from rft.policy.loading import load_model
from tests.rft.policy.tiny_policy import make_adapters, make_model


@pytest.fixture
def config(tmp_path: Path) -> Config:
    stages = [{"name": "imitate"}, {"name": "reinforce"}]
    run = {"name": "run", "folder": str(tmp_path / "runs")}
    lora = {"trainer": {"lora": {"rank": 3}}, "weights": {"content": "adapters"}}
    return Config.model_validate({"run": run, "policy": {"model": "start"}, "stages": stages} | lora)


def finish(stage: Config) -> Path:
    stage.run.path.mkdir(parents=True)
    (stage.run.path / REPORT).write_text('{"status": "finished"}')
    return stage.run.path / "weights" / "policy" / "v00000012"


def test_a_stage_starts_from_the_merged_adapters_of_the_last_one(config: Config, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", 0)
    left = make_adapters(base, finish(config.of_stage(0)), 1)
    model = Path(one_stage(config, "reinforce").policy.model)
    assert model.is_relative_to(config.of_stage(0).run.path)
    whole = load_file(model / "model.safetensors")
    assert all(torch.equal(whole[name], tensor) for name, tensor in merged_weights(left).items())
    load_model(model, device="cpu")
    before = (model / "model.safetensors").stat().st_mtime_ns
    assert one_stage(config, "reinforce").policy.model == str(model)
    assert (model / "model.safetensors").stat().st_mtime_ns == before


def test_a_stage_starts_from_the_whole_model_of_the_last_one_as_it_is(config: Config) -> None:
    left = finish(config.of_stage(0))
    left.mkdir(parents=True)
    assert one_stage(config, "reinforce").policy.model == str(left)
    assert one_stage(config, "imitate").policy.model == "start"
