"""Priorities order groups, and decay with the weight versions if configured to."""

from __future__ import annotations

import pytest

from rft.config import BufferConfig
from rft.errors import ConfigError
from rft.training.priority import GroupFacts, make_priority


def test_priorities_order_groups_and_decay_with_the_versions() -> None:
    def facts(rewards: list[float], version: int) -> GroupFacts:
        return GroupFacts(rewards, 0.5, version, 1)

    hard, split, easy = facts([0, 0, 0, 0], 4), facts([0, 1, 0, 1], 5), facts([1, 1, 1, 0], 6)

    def order(**config: object) -> list[GroupFacts]:
        return sorted([hard, split, easy], key=make_priority(BufferConfig.model_validate(config)), reverse=True)

    assert order(priority="difficulty") == [hard, split, easy]
    assert order(priority="recency") == [easy, split, hard]
    assert order(priority="staleness") == [hard, split, easy]
    assert order(priority="reward_variance") == [split, easy, hard]
    # The variances are 0.25 and 0.1875. One version outweighs their ratio with half-life 1, but not with 10.
    assert order(priority="reward_variance", recency_half_life=1) == [easy, split, hard]
    assert order(priority="reward_variance", recency_half_life=10) == [split, easy, hard]


def raises(rewards: list[float], oldest_version: int, number: int) -> float:
    raise ValueError


def infinite(rewards: list[float], oldest_version: int, number: int) -> float:
    return float("inf")


@pytest.mark.parametrize("plugin", ["raises", "infinite"])
def test_a_plugin_that_fails_gives_priority_zero(plugin: str) -> None:
    priority = make_priority(BufferConfig(priority=f"test_priority:{plugin}"))
    assert priority(GroupFacts([1.0], 0.5, 3, 1)) == 0.0


def test_an_unknown_priority_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"buffer\.priority = 'recencie' is unknown \(did you mean 'recency'\?\)"):
        make_priority(BufferConfig(priority="recencie"))
