"""The example with an agent: its tasks are disjoint, and shortened it trains through a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rft.config_sources import load_config
from rft.log.archive.view import ArchiveView
from schemas.events import Experience

EXAMPLE = Path(__file__).parents[2] / "examples" / "agent"
RFT = Path(sys.executable).with_name("rft")


def test_held_out_tasks_have_no_word_of_the_training_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from spelling_agent import tasks

    words = {
        held_out: {word for item in islice(tasks(0, held_out=held_out), 400) for word in item["question"].split()}
        for held_out in (False, True)
    }
    assert words[False].isdisjoint(words[True])
    assert min(map(len, words.values())) > 100


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_agent_is_trained_through_a_whole_run(tmp_path: Path) -> None:
    """Each rollout is one row with two turns, and its reward is what the agent returned."""
    environment = os.environ | {"PYTHONPATH": f"{EXAMPLE}{os.pathsep}{EXAMPLE.parents[1]}"}

    def run(*arguments: str | Path) -> None:
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    run(sys.executable, EXAMPLE / "make_chat_model.py", "runs/agent-model", "--steps", "30")
    short = ["--trainer.steps", "2", "--trainer.groups_per_step", "4", "--eval.tasks", "10"]
    run(RFT, "run", EXAMPLE / "agent.toml", "--plain", *short)
    folder = tmp_path / "runs" / "agent"
    config = load_config(folder / "config.resolved.toml")
    with ArchiveView(config, str(folder / "archive")) as log:
        found = [event.record() for event in log.read("experiences")]
    assert len(found) >= 2 * 4 * 4 + 2 * 10
    for experience in found:
        assert isinstance(experience, Experience)
        assert experience.error is None
        assert (experience.rows, experience.reward in (0.0, 0.5, 1.0)) == (1, True)
        turns = np.diff(np.concatenate([[0], experience.action_mask]).astype(int)) == 1
        assert turns.sum() == 2
