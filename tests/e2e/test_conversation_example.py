"""The game of two turns, shortened: both turns of a rollout stand in one experience, and the log balances."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pipeline import RFT

from rft.config_sources import load_config
from rft.log.archive.view import ArchiveView
from rft.policy.loading import load_tokenizer
from schemas.codec import decode
from schemas.events import Experience
from tests.e2e.test_data_examples import audit, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "conversation"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_game_of_two_turns_is_imitated_then_reinforced_by_the_workflows_reward(tmp_path: Path) -> None:
    run(tmp_path, sys.executable, str(EXAMPLE / "make_data.py"))
    short = ["--eval.tasks", "10", "--log.partitions", "2", "--stages.imitate.eval.tasks", "0"]
    short += ["--stages.imitate.trainer.steps", "30", "--stages.imitate.trainer.groups_per_step", "64"]
    short += ["--stages.reinforce.trainer.steps", "2", "--stages.reinforce.trainer.groups_per_step", "4"]
    run(tmp_path, RFT, "run", str(EXAMPLE / "conversation.toml"), "--plain", *short)
    stages = tmp_path / "runs" / "conversation" / "stages"
    for stage in ("1-imitate", "2-reinforce"):
        assert audit(stages / stage)["ok"]

    config = load_config(stages / "2-reinforce" / "config.resolved.toml")
    with ArchiveView(config, str(stages / "2-reinforce" / "archive")) as view:
        played = [decode(event.value or b"", Experience) for event in view.read("experiences")]
    tokenizer = load_tokenizer(tmp_path / "runs" / "conversation-data" / "model")
    turns_of = [written_turns(one) for one in played]
    assert {len(turns) for turns in turns_of} == {1, 2}
    for one, turns in zip(played, turns_of, strict=True):
        assert one.prompt.startswith("<user>")
        text = tokenizer.decode(one.tokens.tolist())
        assert text.startswith(one.prompt)
        assert one.reward == float(tokenizer.decode(turns[-1]).removesuffix("<end>") == one.answer)


def written_turns(experience: Experience) -> list[list[int]]:
    """Return the tokens of each turn."""
    edges = np.flatnonzero(np.diff(experience.action_mask.astype(int), prepend=0, append=0))
    return [experience.tokens[begin:end].tolist() for begin, end in edges.reshape(-1, 2)]
