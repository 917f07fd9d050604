"""The example that plays a game of textarena works, shortened, from random weights to trained ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pipeline import RFT
from test_data_examples import EXAMPLES, audit, run

from rft.config_sources import load_config
from rft.tasks.splits import open_sources

EXAMPLE = EXAMPLES / "textarena"


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_model_learns_from_the_episodes_of_a_game(tmp_path: Path) -> None:
    run(tmp_path, sys.executable, str(EXAMPLE / "make_model.py"))
    short = ["--trainer.steps", "3", "--trainer.groups_per_step", "4", "--eval.tasks", "10", "--log.partitions", "2"]
    run(tmp_path, RFT, "run", str(EXAMPLE / "guess_the_number.toml"), "--plain", *short)
    folder = tmp_path / "runs" / "guess-the-number"
    found = audit(folder)
    assert found["ok"]
    assert found["trained"][0]["steps"] == 3
    assert " 0 of them failed" in (folder / "logs" / "explorer-0.log").read_text()


def test_no_held_out_seed_is_trained_on() -> None:
    config = load_config(EXAMPLE / "guess_the_number.toml")
    splits = open_sources(config)
    held_out = {splits.held_out[number].metadata["environment_seed"] for number in range(config.eval.tasks)}
    trained = range(config.trainer.steps * config.trainer.groups_per_step)
    assert len(held_out) == config.eval.tasks
    assert not held_out & {splits.train[number].metadata["environment_seed"] for number in trained}
