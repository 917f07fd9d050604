"""Several ranks learn from one log: the weights are those of one process, and a rank that is killed costs no step."""

import multiprocessing
import random
import shutil

import pytest
from brokers import require_deepspeed
from rank_runs import KILLS, train_and_lose_a_rank
from synthetic import make_tiny_model, publish, scored
from trainer_runs import settings, steps_of, train, trained_ids, versions_of

from rft.errors import CheckpointError
from rft.policy.loading import read_weights
from rft.weights.checkpoint import fetch

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

    def make(broker, name, **trainer):
        config = make_config(broker, **settings(tmp_path, name, model, steps=STEPS, **trainer))
        publish(config, members)
        return config

    return make


def start(config, kill=None):
    """Train in a process of its own, DeepSpeed's state being the process's; what it raised, or None."""
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()
    process = context.Process(target=train_and_lose_a_rank, args=(config.model_dump_json(), kill, said))
    process.start()
    process.join(280)
    assert process.exitcode == 0
    return said.get()


def weights_of(config):
    return read_weights(fetch(versions_of(config)[-1], config.run.path))


def assert_as_near(config, other, tolerance):
    found, expected = weights_of(config), weights_of(other)
    assert found.keys() == expected.keys()
    assert max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items()) < tolerance


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("stage", "kills"), [(2, list(KILLS)), (3, list(KILLS)[:1])])
def test_a_rank_that_is_killed_ends_all_and_the_run_goes_on_as_it_was(embedded_broker, new_run, stage, kills):
    engine = {"engine": "deepspeed", "ranks": 2, "zero_stage": stage, "checkpoint_interval": 3}
    undisturbed = new_run(embedded_broker, "undisturbed", **engine)
    assert start(undisturbed) is None
    config = new_run(embedded_broker, "killed", **engine)
    for kill in kills:
        said = start(config, kill)
        assert said is not None
        assert said.startswith("EngineError: rank 1 of this trainer (process ")
        assert "was killed by SIGKILL" in said
    assert start(config) is None
    steps = steps_of(config)
    assert [s.step for s in steps] == list(range(1, STEPS + 1))
    assert [s.digest for s in steps] == [s.digest for s in steps_of(undisturbed)]
    assert set(trained_ids(steps).values()) == {1}
    alone = new_run(embedded_broker, "alone")
    train(alone)
    assert_as_near(config, alone, 1e-5)
    if stage == 2:
        assert_another_engine_goes_on(config)


def assert_another_engine_goes_on(config):
    """From the same checkpoint; steps to redo only within a tolerance that somebody has set."""
    shutil.rmtree(config.run.path / "checkpoints" / "policy" / f"step-{STEPS:08d}")
    changes = config.trainer.model_dump() | {"engine": "torch", "ranks": 1, "steps": STEPS + 2}
    alone = config.model_copy(update={"trainer": type(config.trainer)(**changes)})
    with pytest.raises(CheckpointError, match=r"engine was deepspeed, is torch; ranks was 2, is 1"):
        train(alone)
    changes["redo_tolerance"] = 1e-4
    train(config.model_copy(update={"trainer": type(config.trainer)(**changes)}))
    assert [s.step for s in steps_of(config)] == list(range(1, STEPS + 3))


@pytest.mark.timeout(600)
def test_adapters_alone_are_trained_and_versions_are_whole_models(embedded_broker, new_run):
    changes = {"lora": {"rank": 4}, "checkpoint_interval": 3}
    sharded = new_run(embedded_broker, "sharded", engine="deepspeed", ranks=2, zero_stage=1, **changes)
    assert start(sharded) is None
    alone = new_run(embedded_broker, "alone", **changes)
    train(alone)
    assert_as_near(sharded, alone, 1e-5)
