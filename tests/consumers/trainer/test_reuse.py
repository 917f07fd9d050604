"""Tests training events repeatedly: their uses are recorded, and after a kill the reuse pool is the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from brokers import ConfigMaker
from synthetic import make_tiny_model, publish, scored
from trainer_runs import settings, start_trainer, steps_of, train

from consumers.trainer.ready_reader import ReadyReader
from rft.config import Config
from rft.log.events import Event

GROUPS, MEMBERS, USES = 9, 2, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def epochs(make_config: ConfigMaker, broker: str, folder: Path, name: str, model: Path, **trainer: Any) -> Config:
    """Configure a run of three epochs over nine groups, three a step, which ends when no groups are left."""
    sections = settings(folder, name, model, steps=1000, patience_s=2.0, **trainer)
    sections["run"]["mode"] = "train"
    config = make_config(broker, **sections, buffer={"reuse": USES}, eval={"tasks": 0})
    publish(config, [scored(g, m, MEMBERS, group_id=f"g-{g}") for g in range(GROUPS) for m in range(MEMBERS)])
    return config


def test_a_run_over_data_ends_when_each_group_has_its_number_of_uses(
    make_config: ConfigMaker, embedded_broker: str, tmp_path: Path, model: Path
) -> None:
    """A small buffer, whose arrays are fetched again from the log, changes nothing."""
    whole = epochs(make_config, embedded_broker, tmp_path, "whole", model)
    small = epochs(make_config, embedded_broker, tmp_path, "small", model, buffer_mb=0.001)
    for config in (whole, small):
        train(config)
    steps = steps_of(whole)
    uses = Counter((ref.experience_id, ref.use) for step in steps for ref in step.trained)
    assert uses == {(f"g-{g}/{m}", use): 1 for g in range(GROUPS) for m in range(MEMBERS) for use in (1, 2, 3)}
    assert [step.metrics["replayed"] for step in steps] == [0.0] * 3 + [6.0] * 6
    assert [step.digest for step in steps] == [step.digest for step in steps_of(small)]


def test_events_that_come_in_drops_are_all_trained_before_any_is_trained_again(
    make_config: ConfigMaker, embedded_broker: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch that returns few events, or none yet, is not the end of the data."""
    quick = epochs(make_config, embedded_broker, tmp_path, "quick", model)
    train(quick)
    polls = 0

    def drip(reader: ReadyReader, timeout_s: float) -> list[Event]:
        nonlocal polls
        polls += 1
        return reader._reader.poll(timeout_s, max_events=1) if polls % 3 == 0 else []

    monkeypatch.setattr(ReadyReader, "poll", drip)
    dripping = epochs(make_config, embedded_broker, tmp_path, "dripping", model)
    train(dripping)
    assert polls >= 3 * GROUPS * MEMBERS
    assert [step.digest for step in steps_of(dripping)] == [step.digest for step in steps_of(quick)]


@pytest.mark.parametrize("kill", ["after a checkpoint", "between a step and its weights"])
def test_a_trainer_killed_in_the_second_epoch_goes_on_as_the_undisturbed_one(
    kill: str, make_config: ConfigMaker, embedded_broker: str, tmp_path: Path, model: Path
) -> None:
    undisturbed = epochs(make_config, embedded_broker, tmp_path, "undisturbed", model)
    train(undisturbed)
    killed = epochs(make_config, embedded_broker, tmp_path, "killed", model)
    for point in (kill, None):
        process = start_trainer(killed, point)
        process.join(100)
        assert process.exitcode == (-9 if point else 0)
    expected = [(s.step, s.digest, [(r.experience_id, r.use) for r in s.trained]) for s in steps_of(undisturbed)]
    assert len(expected) == GROUPS
    found = {s.step: (s.step, s.digest, [(r.experience_id, r.use) for r in s.trained]) for s in steps_of(killed)}
    assert [found[number] for number in sorted(found)] == expected
