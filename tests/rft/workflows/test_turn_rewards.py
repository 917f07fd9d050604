"""Rewards by turn fit the turns that the tokens show, or the rollout fails with what to do."""

from __future__ import annotations

import numpy as np
import pytest

from rft.errors import RolloutError
from rft.workflows.rollout import Outcome, Rollout
from rft.workflows.running import check_rollout
from rft.workflows.trajectory import Trajectory


def row(mask: list[int]) -> Trajectory:
    written = np.array(mask, np.uint8)
    versions = np.where(written == 1, 0, -1).astype(np.int32)
    return Trajectory(
        "p", "r", np.arange(len(mask), dtype=np.int32), written, np.zeros(len(mask), np.float32), versions, "stop"
    )


def test_turns_with_something_read_in_between_keep_their_rewards() -> None:
    rows = (row([0, 1, 1, 0, 1]), row([0, 1]))
    rollout = check_rollout(Rollout(rows, Outcome(turn_rewards={1: 0.5}), ((0, 1), (2,))))
    assert np.isnan(rollout.turn_rewards(0)).tolist() == [True, False]


def test_turns_that_no_token_separates_are_refused_only_if_they_have_rewards() -> None:
    rows = (row([0, 1, 1, 1]),)
    assert check_rollout(Rollout(rows, Outcome(), ((0, 1),))).turn_rewards(0) == []
    with pytest.raises(RolloutError, match="2 turns, whose"):
        check_rollout(Rollout(rows, Outcome(turn_rewards={1: 0.5}), ((0, 1),)))
