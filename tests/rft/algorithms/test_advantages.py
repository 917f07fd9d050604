"""Advantages equal a plain loop over the groups."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.algorithms.advantages import EPSILON, group_centered, group_normalized

grouped = st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 4)), min_size=1, max_size=40).map(
    lambda pairs: (np.array([r for r, _ in pairs]), np.array([g for _, g in pairs], dtype=np.int64))
)


@given(grouped)
def test_centered_is_the_distance_from_the_groups_mean(case):
    rewards, groups = case
    for reward, group, advantage in zip(rewards, groups, group_centered(rewards, groups), strict=True):
        assert advantage == pytest.approx(reward - statistics.fmean(rewards[groups == group]), abs=1e-9)


@given(grouped)
def test_normalized_divides_by_the_groups_sample_deviation(case):
    rewards, groups = case
    for reward, group, advantage in zip(rewards, groups, group_normalized(rewards, groups), strict=True):
        own = rewards[groups == group]
        deviation = statistics.stdev(own) if len(own) > 1 else 0.0
        expected = (reward - statistics.fmean(own)) / (deviation + EPSILON)
        assert advantage == pytest.approx(expected, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("function", [group_centered, group_normalized])
def test_a_uniform_group_gets_no_advantage(function):
    rewards = np.array([0.1] * 7 + [0.0, 1.0])
    advantages = function(rewards, np.array([0] * 7 + [1, 1]))
    assert np.abs(advantages[:7]).max() < 1e-9
    assert advantages[8] > 0.4


@given(grouped, st.randoms(use_true_random=False))
def test_other_groups_do_not_matter(case, random):
    rewards, groups = case
    changed = np.where(groups == groups[0], rewards, rewards + random.random())
    same = groups == groups[0]
    assert group_normalized(rewards, groups)[same] == pytest.approx(group_normalized(changed, groups)[same])
