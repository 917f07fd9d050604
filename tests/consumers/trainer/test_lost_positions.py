"""Tests that a trainer stops with a clear error, and skips nothing, when the log no longer holds what it needs."""

from __future__ import annotations

import shutil

import pytest
from deleting import delete_before, skipping
from synthetic import make_tiny_model, publish, scored
from trainer_runs import settings, steps_of, train, trained_ids

from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.reader import EventReader

pytestmark = pytest.mark.kafka
SIZE, STEPS = 4, 2
PER_STEP = 3 * SIZE
"""Events of one step."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def trained(kafka_broker, make_config, tmp_path, model):
    """A run of two steps with its checkpoint; events for two more steps follow."""
    config = make_config(kafka_broker, **settings(tmp_path, "run", model, steps=STEPS, checkpoint_interval=2))
    publish(config, [scored(number, sample, SIZE) for number in range(12) for sample in range(SIZE)])
    train(config)
    return config


def longer(config: Config, steps: int) -> Config:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"steps": steps})})


def missing(config: Config) -> MissingRangeError:
    with pytest.raises(MissingRangeError) as caught:
        train(config)
    return caught.value


def test_a_position_that_the_log_has_lost_stops_the_trainer(trained):
    position, begin = STEPS * PER_STEP, STEPS * PER_STEP + 5
    delete_before(trained, "ready", begin)
    error = missing(longer(trained, 3))
    assert (error.entity, error.partition, error.start, error.end) == ("ready", 0, position, begin)
    for part in (
        f"ready, partition 0: offsets {position} to {begin - 1} are missing",
        "the next event is from 20",
        "this is where training goes on",
        "log.skip_deleted = true",
        "start over under another run.name",
        "archive.enabled = true",
    ):
        assert part in str(error)
    assert [step.step for step in steps_of(trained)] == [1, 2]


def test_a_trainer_that_skips_deleted_events_trains_the_rest(trained, caplog):
    delete_before(trained, "ready", (STEPS + 1) * PER_STEP)
    train(longer(skipping(trained), 3))
    assert "going on without what is missing" in caplog.text
    steps = steps_of(trained)
    assert [step.step for step in steps] == [1, 2, 3]
    assert set(trained_ids(steps).values()) == {1}
    assert {ref.number for ref in steps[2].trained} == {9, 10, 11}


def test_what_a_redo_needs_is_never_skipped(trained):
    shutil.rmtree(trained.run.path / "checkpoints")
    delete_before(trained, "ready", 5)
    error = missing(skipping(trained))
    assert (error.entity, error.start, error.end) == ("ready", 0, 5)
    assert "the steps after the checkpoint" in str(error)
    assert "skip" not in str(error)


@pytest.mark.parametrize("checkpoint", ["with a checkpoint", "without one"])
def test_a_redo_log_that_was_deleted_stops_the_trainer(trained, checkpoint):
    with EventReader(trained, "test", ["steps"]) as reader:
        end = reader.end_offsets()["steps", 0]
    if checkpoint == "without one":
        shutil.rmtree(trained.run.path / "checkpoints")
        delete_before(trained, "steps", end - 1)
        error = missing(trained)
        assert (error.entity, error.start, error.end) == ("steps", 0, end - 1)
    else:
        delete_before(trained, "steps", end)
        error = missing(longer(trained, 3))
        assert (error.entity, error.start, error.end) == ("steps", end - 1, end)
    assert "the redo log" in str(error)
    assert "log.audit_retention_hours" in str(error)
