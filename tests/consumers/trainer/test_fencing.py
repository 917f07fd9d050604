"""Tests two trainers with one identity: the newer takes over, the older stops with an error, the run stays the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from synthetic import make_tiny_model, publish, read_all, scored
from trainer_runs import settings, steps_of, train, trained_ids, versions_of

from consumers.trainer import run
from rft.config_toml import masked, to_toml
from rft.errors import CheckpointError, FencedError
from rft.stream.fence import CLAIM, unfenced_entries
from rft.weights.version_folders import fetch

GROUPS, SIZE, STEPS = 36, 4, 12

PAUSED = """
import os, signal, sys
from pathlib import Path
from {module} import {cls}
from infra.roles import run_role
from rft.config_sources import load_config
original, calls = {cls}.{name}, 0
def paused(self, *args, **kwargs):
    global calls
    calls += 1
    if calls == {count}:
        os.kill(os.getpid(), signal.SIGSTOP)
    return original(self, *args, **kwargs)
{cls}.{name} = paused
sys.exit(run_role("trainer", load_config(Path(sys.argv[1]))))
"""
"""A trainer that stops itself right before one of its calls, as a machine that hangs would."""

PAUSE_POINTS = {
    "before a step is recorded": ("consumers.trainer.announcer", "Announcer", "record", 3),
    "between a step and its weights": ("rft.weights.version_folders", "VersionFolders", "write_when_possible", 4),
    "before the weights are announced": ("rft.weights.folder_transport", "FolderTransport", "_announce", 4),
    "before a checkpoint": ("rft.training.learner", "Learner", "checkpoint", 1),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def new_run(make_config, tmp_path, model):
    members = [scored(number, sample, SIZE) for number in range(GROUPS) for sample in range(SIZE)]
    random.Random(0).shuffle(members)

    def make(broker, name, **trainer):
        config = make_config(broker, **settings(tmp_path, name, model, **trainer))
        publish(config, members)
        return config

    return make


def start(config, folder, point=None):
    path = folder / f"{config.run.name}.toml"
    path.write_text(to_toml(masked(config)))
    words = ["-m", "infra.cli", "trainer", str(path)]
    if point:
        module, cls, name, count = point
        words = ["-c", PAUSED.format(module=module, cls=cls, name=name, count=count), str(path)]
    return subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)


def wait_until_stopped(process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        _, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
        if os.WIFSTOPPED(status):
            return
        time.sleep(0.05)
    raise AssertionError("it never reached the point where it stops")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", PAUSE_POINTS)
def test_a_trainer_that_hung_while_another_took_over_stops_and_changes_nothing(
    kafka_broker, new_run, tmp_path, undisturbed_digests, point
):
    config = new_run(kafka_broker, "hung")
    old = start(config, tmp_path, PAUSE_POINTS[point])
    wait_until_stopped(old)
    train(config)
    weights = weights_of(config)
    old.send_signal(signal.SIGCONT)
    _, errors = old.communicate(timeout=60)
    assert old.returncode == FencedError.exit_code, errors
    assert f"process {os.getpid()} on" in errors
    assert "give each its own trainer.model_key" in errors

    counted = list(unfenced_entries(read_all(config, "steps")))
    assert [s.step for s in counted] == list(range(1, STEPS + 1))
    assert [s.digest for s in counted] == undisturbed_digests
    assert set(trained_ids(counted).values()) == {1}
    newest = max(versions_of(config), key=lambda v: v.version)
    assert newest.final
    fetch(newest, config.run.path)
    assert weights_of(config) == weights


def weights_of(config):
    newest = sorted((config.run.path / "weights" / "policy").glob("v*/model.safetensors"))[
        -config.trainer.keep_versions :
    ]
    return {file.parent.name: file.read_bytes() for file in newest}


@pytest.fixture
def undisturbed_digests(kafka_broker, new_run):
    config = new_run(kafka_broker, "undisturbed")
    train(config)
    return [step.digest for step in steps_of(config)]


def test_a_trainer_that_waits_for_data_learns_of_its_successor(any_broker, new_run, monkeypatch):
    monkeypatch.setattr("consumers.trainer.claim.CHECK_EVERY_S", 0.2)
    config = new_run(any_broker, "waiting", steps=100)
    raised = []

    def first():
        try:
            run(config, threading.Event())
        except FencedError as error:
            raised.append(error)

    older = threading.Thread(target=first)
    older.start()
    wait_for_steps(config)
    stop = threading.Event()
    newer = threading.Thread(target=run, args=(config, stop))
    newer.start()
    older.join(30)
    stop.set()
    newer.join(30)
    assert not older.is_alive()
    assert not newer.is_alive()
    assert len(raised) == 1


def wait_for_steps(config):
    deadline = time.monotonic() + 60
    while len(steps_of(config)) < STEPS:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_start_that_the_log_refuses_does_not_take_over_the_run(embedded_broker, new_run):
    here = new_run(embedded_broker, "here", steps=4)
    there = new_run(embedded_broker, "there", steps=4, learning_rate=2e-2)
    train(here)
    train(there)
    with pytest.raises(CheckpointError, match="made with another log"):
        train(here.model_copy(update={"log": there.log}))
    assert [e.kind for e in read_all(there, "steps")].count(CLAIM) == 1


def test_a_start_with_another_model_does_not_take_over_the_run(embedded_broker, new_run, tmp_path):
    config = new_run(embedded_broker, "first")
    at_once = threading.Event()
    at_once.set()
    run(config, at_once)
    other = config.policy.model_copy(update={"model": str(make_tiny_model(tmp_path / "other", seed=7))})
    renamed = config.run.model_copy(update={"name": "second"})
    with pytest.raises(CheckpointError, match="already holds weight version 0"):
        train(config.model_copy(update={"run": renamed, "policy": other}))
    assert [e.kind for e in read_all(config, "steps")] == [CLAIM]


def test_each_start_claims_before_it_records(embedded_broker, new_run):
    config = new_run(embedded_broker, "claims", steps=2)
    train(config)
    entries = read_all(config, "steps")
    assert [e.kind for e in entries] == [CLAIM, "step", "step"]
    assert len({e.incarnation for e in entries}) == 1
