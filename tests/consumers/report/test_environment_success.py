"""An environment that says how well its episode went decides what an evaluation counts as right."""

from __future__ import annotations

import pytest
from log_events import experience, scored

from consumers.report.measures import is_correct


@pytest.mark.parametrize(
    ("success", "reward", "right"),
    [(1.0, 0.2, True), (0.0, 5.0, False), (0.5, 5.0, False), (None, 1.0, True), (None, 0.9, False)],
)
def test_success_comes_before_the_reward(success: float | None, reward: float, right: bool) -> None:
    rewards = {} if success is None else {"success": success}
    one = experience("eval-0/0", reward=reward, rewards=rewards)
    assert is_correct(scored(one, reward), "exact_match") is right
