"""Tests that a killed trainer goes on as if nothing had happened: same weights, nothing published or trained twice."""

import random
import shutil
import signal

import pytest
from synthetic import make_tiny_model, publish, scored
from trainer_runs import (
    KILL_POINTS,
    settings,
    start_trainer,
    steps_of,
    train,
    trained_ids,
    versions_of,
)

from rft.errors import BrokerError, CheckpointError
from rft.weights.version_folders import fetch

GROUPS, SIZE, STEPS = 36, 4, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def events():
    members = [scored(number, sample, SIZE) for number in range(GROUPS) for sample in range(SIZE)]
    random.Random(0).shuffle(members)
    return members + members[::5]


@pytest.fixture
def new_run(make_config, tmp_path, model, events):
    def make(broker, name, *, algorithm=None, **trainer):
        config = make_config(broker, algorithm=algorithm or {}, **settings(tmp_path, name, model, **trainer))
        publish(config, events)
        return config

    return make


def assert_same_run(config, undisturbed):
    """Assert that each step and version is on the log once, with the weights of the undisturbed run."""
    steps, expected = steps_of(config), steps_of(undisturbed)
    assert [s.step for s in steps] == [s.step for s in expected] == list(range(1, STEPS + 1))
    assert [s.digest for s in steps] == [s.digest for s in expected]
    assert [s.trained for s in steps] == [s.trained for s in expected]
    versions = versions_of(config)
    assert [v.version for v in versions] == [v.version for v in versions_of(undisturbed)]
    assert [v.sha256 for v in versions] == [v.sha256 for v in versions_of(undisturbed)]
    assert [v.final for v in versions] == [False] * STEPS + [True]
    assert set(trained_ids(steps).values()) == {1}
    fetch(versions[-1], config.run.path)


@pytest.mark.timeout(240)
def test_a_run_killed_at_every_point_equals_the_undisturbed_run(any_broker, new_run):
    undisturbed = new_run(any_broker, "undisturbed")
    train(undisturbed)
    config = new_run(any_broker, "killed")
    for point in KILL_POINTS:
        process = start_trainer(config, kill=point)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, point
    process = start_trainer(config)
    process.join(60)
    assert process.exitcode == 0
    assert_same_run(config, undisturbed)


@pytest.mark.timeout(120)
def test_a_killed_run_goes_on_at_the_learning_rates_of_the_undisturbed_one(embedded_broker, new_run):
    schedule = {"learning_rate_schedule": "cosine", "warmup_steps": 3, "final_learning_rate": 1e-4}
    undisturbed = new_run(embedded_broker, "undisturbed", **schedule)
    train(undisturbed)
    config = new_run(embedded_broker, "killed", **schedule)
    for point in ("between a step and its weights", "after a checkpoint", "before a step is recorded"):
        process = start_trainer(config, kill=point)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, point
    train(config)
    assert_same_run(config, undisturbed)
    rates, expected = ([s.metrics["learning_rate"] for s in steps_of(run)] for run in (config, undisturbed))
    assert rates == expected
    assert (rates[0], max(rates)) == pytest.approx((1e-2 / 3, 1e-2))
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 1e-3


@pytest.mark.timeout(120)
def test_a_killed_run_goes_on_with_the_references_of_the_undisturbed_one(embedded_broker, new_run):
    """Checkpoints are after steps 4, 8 and 12, resets after 3, 6 and 9. What is killed has its files on the disk."""
    algorithm = {"kl": "k2", "kl_coef": 0.5, "reference_reset": 3}
    undisturbed = new_run(embedded_broker, "undisturbed", algorithm=algorithm)
    train(undisturbed)
    config = new_run(embedded_broker, "killed", algorithm=algorithm)
    for point in ("between a step and its weights", "within a checkpoint", "after a checkpoint", "after a checkpoint"):
        process = start_trainer(config, kill=point)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, point
    train(config)
    assert_same_run(config, undisturbed)


@pytest.mark.timeout(240)
def test_a_run_killed_at_random_moments_equals_the_undisturbed_run(embedded_broker, new_run):
    undisturbed = new_run(embedded_broker, "undisturbed", sync_interval=1)
    train(undisturbed)
    config = new_run(embedded_broker, "killed")
    moments = random.Random(1)
    killed = 0
    for _ in range(30):
        process = start_trainer(config)
        process.join(moments.uniform(0.15, 0.6))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        killed += 1
    process.join(60)
    train(config)
    assert killed > 0
    assert_same_run(config, undisturbed)


def test_without_a_checkpoint_all_steps_are_redone_and_nothing_is_published(embedded_broker, new_run):
    config = new_run(embedded_broker, "run", sync_interval=3)
    train(config)
    before = steps_of(config), versions_of(config)
    assert [v.step for v in before[1]] == [0, 3, 6, 9, 12]
    shutil.rmtree(config.run.path)
    train(config)
    assert (steps_of(config), versions_of(config)) == before
    fetch(before[1][-1], config.run.path)


def test_a_finished_run_publishes_nothing_more(embedded_broker, new_run):
    config = new_run(embedded_broker, "run")
    train(config)
    before = steps_of(config), versions_of(config)
    train(config)
    assert (steps_of(config), versions_of(config)) == before


def test_more_steps_continue_a_finished_run(embedded_broker, new_run):
    config = new_run(embedded_broker, "run", steps=5)
    train(config)
    longer = config.model_copy(update={"trainer": config.trainer.model_copy(update={"steps": STEPS})})
    train(longer)
    assert [s.step for s in steps_of(config)] == list(range(1, STEPS + 1))
    assert [v.final for v in versions_of(config)] == [False] * 5 + [True] + [False] * 6 + [True]


def test_redoing_with_changed_hyperparameters_stops_and_names_them(embedded_broker, new_run):
    config = new_run(embedded_broker, "run", checkpoint_interval=5)
    train(config)
    shutil.rmtree(config.run.path / "checkpoints" / "policy" / f"step-{STEPS:08d}")
    changed = config.model_copy(update={"trainer": config.trainer.model_copy(update={"learning_rate": 0.02})})
    with pytest.raises(CheckpointError, match=r"redoing step 11 led to .*learning_rate was 0.01, is 0.02"):
        train(changed)


def test_another_logs_checkpoint_is_refused(embedded_broker, new_run):
    config = new_run(embedded_broker, "run")
    train(config)
    other = new_run(embedded_broker, "run")
    with pytest.raises((CheckpointError, BrokerError), match=r"log"):
        train(other)
    assert steps_of(other) == []


def test_a_log_that_started_from_another_model_is_refused(embedded_broker, new_run, tmp_path):
    config = new_run(embedded_broker, "run")
    train(config)
    other = make_tiny_model(tmp_path / "other", seed=3)
    changed = config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"model": str(other)}),
            "run": config.run.model_copy(update={"name": "fresh"}),
        }
    )
    with pytest.raises(CheckpointError, match=r"redoing step 1 led to|another model"):
        train(changed)


def test_redone_steps_may_diverge_as_far_as_the_configuration_allows(embedded_broker, new_run):
    config = new_run(embedded_broker, "run", steps=8, checkpoint_interval=5)
    train(config)
    before = versions_of(config)
    shutil.rmtree(config.run.path / "checkpoints" / "policy" / "step-00000008")

    def with_trainer(**changes):
        trainer = config.trainer.model_copy(update={"micro_batch_tokens": 20, "steps": 10} | changes)
        return config.model_copy(update={"trainer": trainer})

    with pytest.raises(CheckpointError, match=r"micro_batch_tokens was 16384, is 20.*set trainer.redo_tolerance"):
        train(with_trainer())
    with pytest.raises(CheckpointError, match=r"differ by up to .* allows for 1e-30"):
        train(with_trainer(redo_tolerance=1e-30))
    train(with_trainer(redo_tolerance=1e-3))
    assert [s.step for s in steps_of(config)] == list(range(1, 11))
    assert versions_of(config)[: len(before)] == before
    train(with_trainer(steps=11))
    assert versions_of(config)[-1].step == 11
