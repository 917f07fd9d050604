"""Kills trainers at twenty points drawn from a seed: the final weights equal the undisturbed run's, bit for bit."""

import random
import signal
from collections import Counter

import pytest
from synthetic import make_tiny_model, publish, scored
from trainer_runs import (
    KILL_FUNCTIONS,
    WHILE_REDOING,
    draw_kills,
    settings,
    start_trainer,
    steps_of,
    train,
    versions_of,
)

from rft.training.checkpoint import newest_checkpoint
from rft.weights.version_folders import fetch

SEED, POINTS = 11, 20
GROUPS, SIZE, STEPS = 18, 4, 6
DRAWN = draw_kills(SEED, POINTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def new_run(tmp_path_factory, model, kafka_broker):
    from rft.config import Config

    folder = tmp_path_factory.mktemp("runs")
    members = [scored(number, sample, SIZE) for number in range(GROUPS) for sample in range(SIZE)]
    random.Random(0).shuffle(members)

    def make(name):
        sections = settings(folder, name, model, steps=STEPS, checkpoint_interval=2)
        sections["broker"] = {"kind": "external", "bootstrap_servers": kafka_broker}
        sections["log"] = sections["log"] | {"namespace": f"kills-{folder.name}-{name}"}
        config = Config.model_validate(sections)
        publish(config, members)
        return config

    return make


@pytest.fixture(scope="module")
def undisturbed(new_run):
    config = new_run("undisturbed")
    train(config)
    return [s.digest for s in steps_of(config)], [v.sha256 for v in versions_of(config)]


def test_the_kill_points_are_spread_over_all_functions():
    functions = Counter(kill[0] for kills in DRAWN for kill in kills)
    assert functions.keys() >= KILL_FUNCTIONS.keys()
    assert functions.keys() & set(WHILE_REDOING)
    assert {side for kills in DRAWN for _, side, _ in kills} == {"before", "halfway", "after"}
    assert len(DRAWN) == POINTS
    assert len({tuple(kills) for kills in DRAWN}) == POINTS


def describe(kills):
    return ", then ".join(f"{side} call {call} of {where.partition(':')[2]}" for where, side, call in kills)


@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(POINTS), ids=[describe(kills) for kills in DRAWN])
def test_a_run_killed_there_ends_with_the_weights_of_the_undisturbed_run(number, new_run, undisturbed):
    config = new_run(f"killed-{number}")
    for kill in DRAWN[number]:
        process = start_trainer(config, kill)
        process.join(100)
        assert process.exitcode == -signal.SIGKILL, kill
    process = start_trainer(config)
    process.join(100)
    assert process.exitcode == 0
    digests, sha256 = undisturbed
    assert [s.step for s in steps_of(config)] == list(range(1, STEPS + 1))
    assert [s.digest for s in steps_of(config)] == digests
    assert [v.sha256 for v in versions_of(config)] == sha256
    assert fetch(versions_of(config)[-1], config.run.path)
    assert newest_checkpoint(config.run.path, "policy").state.digest == digests[-1]
