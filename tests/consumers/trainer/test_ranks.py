"""Tests trainers of several ranks: the weights equal those of one process, and a killed rank costs no step."""

import multiprocessing
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from brokers import require_deepspeed
from rank_runs import KILLS, train_and_lose_a_rank
from synthetic import make_tiny_model, publish, scored
from trainer_runs import settings, steps_of, train, trained_ids, versions_of

from rft.errors import CheckpointError
from rft.model_files.tensors import read_weights
from rft.weights.version_folders import fetch

pytestmark = pytest.mark.deepspeed

GROUPS, SIZE, STEPS = 30, 4, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def new_run(make_config, tmp_path, model):
    require_deepspeed()
    members = [scored(number, sample, SIZE) for number in range(GROUPS) for sample in range(SIZE)]
    random.Random(0).shuffle(members)

    def make(broker, name, algorithm=None, content="model", **trainer):
        sections = settings(tmp_path, name, model, steps=STEPS, **trainer)
        algorithm = algorithm if isinstance(algorithm, dict) else {"name": algorithm or "grpo"}
        config = make_config(broker, algorithm=algorithm, weights={"content": content}, **sections)
        publish(config, members)
        return config

    return make


def start(config, kill=None):
    """Train in its own process, because DeepSpeed keeps global state, and return what it raised, or None."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=train_and_lose_a_rank, args=(config.model_dump_json(), kill, results))
    process.start()
    process.join(280)
    assert process.exitcode == 0
    return results.get()


@pytest.fixture
def in_background():
    """Run ``start`` in parallel to the test. Calling its result waits and asserts that nothing was raised."""
    with ThreadPoolExecutor() as pool:

        def begin(config):
            running = pool.submit(start, config)

            def end():
                assert running.result() is None

            return end

        yield begin


def weights_of(config):
    return read_weights(fetch(versions_of(config)[-1], config.run.path))


def assert_as_near(config, other, tolerance):
    found, expected = weights_of(config), weights_of(other)
    assert found.keys() == expected.keys()
    assert max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items()) < tolerance


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("stage", "kills"), [(2, list(KILLS)), (3, list(KILLS)[:1])])
def test_a_killed_rank_ends_the_trainer_and_the_next_start_continues_the_run(
    embedded_broker, new_run, in_background, stage, kills
):
    schedule = {"learning_rate_schedule": "cosine", "warmup_steps": 1, "decay_steps": STEPS + 4}
    engine = {"engine": "deepspeed", "ranks": 2, "zero_stage": stage, "checkpoint_interval": 3, **schedule}
    undisturbed = new_run(embedded_broker, "undisturbed", **engine)
    undisturbed_ends = in_background(undisturbed)
    config = new_run(embedded_broker, "killed", **engine)
    for kill in kills:
        error = start(config, kill)
        assert error is not None
        assert error.startswith("EngineError: rank 1 of this trainer (process ")
        assert "was killed by SIGKILL" in error
    assert start(config) is None
    undisturbed_ends()
    steps = steps_of(config)
    assert [s.step for s in steps] == list(range(1, STEPS + 1))
    assert [s.digest for s in steps] == [s.digest for s in steps_of(undisturbed)]
    assert set(trained_ids(steps).values()) == {1}
    alone = new_run(embedded_broker, "alone", **schedule)
    train(alone)
    assert_as_near(config, alone, 1e-5)
    rates = [s.metrics["learning_rate"] for s in steps]
    assert rates == [s.metrics["learning_rate"] for s in steps_of(alone)]
    assert len(set(rates)) > 2
    if stage == 2:
        assert_another_engine_goes_on(config)
    else:
        assert_more_ranks_go_on(config, alone, in_background)


def assert_more_ranks_go_on(config, alone, in_background):
    """Continue from the checkpoint of two ranks with three, and compare with one process and its own checkpoint."""
    alone_ends = in_background(longer(alone))
    assert start(longer(config, ranks=3)) is None
    alone_ends()
    for run in (config, alone):
        assert [s.step for s in steps_of(run)] == list(range(1, STEPS + 3))
    assert_as_near(config, alone, 1e-5)


def longer(config, **changes):
    changes = config.trainer.model_dump() | {"steps": STEPS + 2} | changes
    return config.model_copy(update={"trainer": type(config.trainer)(**changes)})


def assert_another_engine_goes_on(config):
    """Continue from the same checkpoint; steps are redone only within a configured tolerance."""
    shutil.rmtree(config.run.path / "checkpoints" / "policy" / f"step-{STEPS:08d}")
    with pytest.raises(CheckpointError, match=r"engine was deepspeed, is torch; ranks was 2, is 1"):
        train(longer(config, engine="torch", ranks=1))
    train(longer(config, engine="torch", ranks=1, redo_tolerance=1e-4))
    assert [s.step for s in steps_of(config)] == list(range(1, STEPS + 3))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("stage", "content"), [(1, "model"), (3, "adapters")])
def test_adapters_alone_are_trained_and_versions_are_whole_models_or_adapters(embedded_broker, new_run, stage, content):
    changes = {"lora": {"rank": 4}, "checkpoint_interval": 3, "content": content}
    sharded = new_run(embedded_broker, "sharded", engine="deepspeed", ranks=2, zero_stage=stage, **changes)
    assert start(sharded) is None
    alone = new_run(embedded_broker, "alone", **changes)
    train(alone)
    assert_as_near(sharded, alone, 1e-5)
    assert {name.endswith((".lora_A.weight", ".lora_B.weight")) for name in weights_of(sharded)} == {
        content == "adapters"
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", [2, 3])
def test_a_value_head_is_trained_on_all_ranks_and_goes_on_after_a_kill(embedded_broker, new_run, in_background, stage):
    """Its KL term compares with a reference that is reset between two checkpoints."""
    algorithm = {"name": "ppo", "kl": "k2", "kl_coef": 0.1, "reference_reset": 4}
    changes = {"algorithm": algorithm, "minibatches": 2, "checkpoint_interval": 3}
    sharded = {"engine": "deepspeed", "ranks": 2, "zero_stage": stage, **changes}
    undisturbed = new_run(embedded_broker, "undisturbed", **sharded)
    undisturbed_ends = in_background(undisturbed)
    if stage == 2:
        killed = new_run(embedded_broker, "killed", **sharded)
        assert start(killed, next(iter(KILLS))).startswith("EngineError")
        assert start(killed) is None
    alone = new_run(embedded_broker, "alone", **changes)
    train(alone)
    undisturbed_ends()
    assert_as_near(undisturbed, alone, 1e-5)
    expected, steps = (
        [[step.metrics[name] for step in steps_of(one)] for name in ("value_loss", "grad_norm", "kl")]
        for one in (alone, undisturbed)
    )
    assert np.array(steps) == pytest.approx(np.array(expected), rel=1e-4)
    if stage == 2:
        numbers = [(s.digest, s.metrics["value_crc32"]) for s in steps_of(killed)]
        assert numbers == [(s.digest, s.metrics["value_crc32"]) for s in steps_of(undisturbed)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_bfloat16_computes_roughly_the_same_and_keeps_float32_weights(embedded_broker, new_run, model, engine):
    """The weights move in the same direction, not by the same bits, and by less than bfloat16 could represent."""
    ranks = {"engine": "deepspeed", "ranks": 2, "zero_stage": 3} if engine == "deepspeed" else {}
    rounded = new_run(embedded_broker, "rounded", dtype="bfloat16", **ranks)
    assert start(rounded) is None
    exact = new_run(embedded_broker, "exact")
    train(exact)
    initial = read_weights(model)
    moved, expected = (
        torch.cat([(tensor - initial[name]).flatten() for name, tensor in sorted(weights_of(one).items())])
        for one in (rounded, exact)
    )
    assert torch.cosine_similarity(moved, expected, dim=0) > 0.9
    assert not torch.equal(moved, expected)
    assert all(tensor.dtype == torch.float32 for tensor in weights_of(rounded).values())
    assert any(not torch.equal(t, t.bfloat16().float()) for t in weights_of(rounded).values())
