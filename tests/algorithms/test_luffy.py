"""LUFFY compares demonstrations with the rollouts of their group and shapes the policy's probability of them."""

from __future__ import annotations

from typing import Any

import pytest
import variant_papers
from random_steps import assert_equal, random_case, run

SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_loss_and_gradient_equal_the_papers(seed: int, gamma: float) -> None:
    case = random_case(seed, kinds="mixed")
    result = run(case, name="luffy", loss_options={"gamma": gamma})
    assert_equal(case, result, lambda step: variant_papers.luffy(step, gamma))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "settings",
    [
        {"rejection": "token", "rejection_low": 0.0, "rejection_high": 1e9},
        {"off_policy_mask": 1e9},
        {"token_filter": "high_entropy", "token_filter_options": {"share": 1.0}},
    ],
)
def test_what_rates_samples_of_the_policy_leaves_demonstrations_alone(seed: int, settings: dict[str, Any]) -> None:
    """Bounds that no rollout exceeds change nothing, although experts' tokens have no log-probabilities."""
    case = random_case(seed, kinds="mixed")
    assert_equal(case, run(case, name="luffy", **settings), variant_papers.luffy)


def test_without_demonstrations_it_is_grpo() -> None:
    case = random_case(0)
    luffy, grpo = run(case, name="luffy"), run(case, name="grpo")
    assert luffy.loss == grpo.loss
    assert all((luffy.gradients[name] == grpo.gradients[name]).all() for name in grpo.gradients)
