"""The reference is reset to the policy every k steps, exactly, also after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from synthetic import VOCABULARY, make_tiny_model, scored

from rft.algorithms.compose import compose
from rft.config import AlgorithmConfig, Config
from rft.errors import ConfigError
from rft.log.coordinates import LogPosition
from rft.model_files.model_folder import write_folder
from rft.training.batch import StepBatch
from rft.training.checkpoint import newest_checkpoint
from rft.training.engines.torch_engine import TorchEngine
from rft.training.learner import Learner
from rft.training.progress import LogProgress
from rft.training.sample import Sample, SampleFilter, read_sample

SIZE, STEPS, EVERY = 4, 7, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def samples() -> Sequence[Sample]:
    wanted = SampleFilter(VOCABULARY, "policy")
    return [read_sample(0, 0, scored(group, sample, SIZE), wanted) for group in range(3) for sample in range(SIZE)]


def configure(model: Path, folder: Path, **algorithm: Any) -> Config:
    return Config(
        policy={"model": str(model)},
        trainer={"learning_rate": 1e-2},
        algorithm={"kl": "k2", "kl_coef": 0.5, "reference_reset": EVERY} | algorithm,
        run={"folder": str(folder), "name": "r"},
    )


def learn(learner: Learner, samples: Sequence[Sample], until: int) -> list[float]:
    """Take the steps up to ``until`` and return the mean KL estimates, which only a reset can set to 0."""
    return [learner.learn(samples)[0]["kl"] for _ in range(until - learner.step)]


def test_the_policy_becomes_the_reference_after_every_third_step(
    model: Path, samples: Sequence[Sample], tmp_path: Path
) -> None:
    config = configure(model, tmp_path)
    learner = Learner(config, None, LogProgress({}))
    kl = learn(learner, samples, STEPS)
    assert [step for step, estimate in enumerate(kl, start=1) if estimate == 0] == [1, 4, 7]
    engine = TorchEngine(model, config)
    engine.set_reference(model)
    for number in range(1, STEPS + 1):
        engine.step(number, StepBatch.from_samples(samples), version=None)
        if number in (3, 6):
            folder = tmp_path / f"copy-{number}"
            write_folder(folder, {**learner.companions, "model.safetensors": engine.serialized().data}, "a copy")
            engine.set_reference(folder)
    assert engine.serialized().sha256 == learner.digest
    undisturbed = Learner(configure(model, tmp_path / "other", reference_reset=0), None, LogProgress({}))
    learn(undisturbed, samples, STEPS)
    assert undisturbed.digest != learner.digest


@pytest.mark.parametrize("stopped_at", [2, 3, 4, 5])
def test_a_resumed_run_has_the_reference_that_it_had(
    model: Path, samples: Sequence[Sample], tmp_path: Path, stopped_at: int
) -> None:
    """Two restarts: the second finds in its checkpoint what the first has only read."""
    straight = Learner(configure(model, tmp_path / "straight"), None, LogProgress({}))
    learn(straight, samples, STEPS)
    config = configure(model, tmp_path / "resumed")
    learner = Learner(config, None, LogProgress({}))
    for step in (stopped_at, stopped_at + 1):
        learn(learner, samples, step)
        learner.last_record = LogPosition(0, step)
        learner.checkpoint()
        learner = Learner(config, newest_checkpoint(config.run.path, "policy"), LogProgress({}))
        assert learner.step == step
    learn(learner, samples, STEPS)
    assert learner.digest == straight.digest


def test_a_reset_that_cannot_be_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'grpo' without a KL term compares with no reference"):
        compose(AlgorithmConfig(reference_reset=5))
    for fields in ({"name": "dpo"}, {"kl": "k2"}):
        compose(AlgorithmConfig(reference_reset=5, **fields))
    with pytest.raises(ValidationError, match=r"reference_reset does not work with trainer\.lora"):
        Config(algorithm={"reference_reset": 5, "kl": "k2"}, trainer={"lora": {"rank": 2}})
