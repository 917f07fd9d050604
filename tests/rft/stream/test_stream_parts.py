"""Single steps of the pipeline do what they promise."""

from __future__ import annotations

import pytest
from stream_experiences import make_experience

from rft.errors import ConfigError, RewardError
from rft.stream.dedupe import ReleasedGroups
from rft.stream.pending_sample import score
from rft.stream.prioritize import make_prioritizer, priority


def test_released_groups_are_remembered_up_to_a_bound_the_newest_kept():
    released = ReleasedGroups(capacity=100)
    for number in range(1000):
        released.add(f"g{number}", [f"g{number}/0"], whole=True)
    assert len(released) == 100
    assert released.repetition("g999", "g999/0") == "duplicate"
    assert released.repetition("g899", "g899/0") is None


def test_a_sample_missing_from_a_release_is_late_not_a_duplicate():
    released = ReleasedGroups()
    released.add("g", ["g/0", "g/1"], whole=False)
    assert released.repetition("g", "g/1") == "duplicate"
    assert released.repetition("g", "g/2") == "late"
    assert released.repetition("h", "h/0") is None


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_an_error(reward):
    with pytest.raises(RewardError, match="finite"):
        score(make_experience(), lambda _: (reward, {}))


def test_a_demonstration_needs_no_reward():
    assert score(make_experience(kind="demonstration"), lambda _: 1 / 0) == (0.0, {})


@pytest.mark.parametrize("wrong", [lambda rewards: 1 / 0, lambda rewards: float("nan"), lambda rewards: "much"])
def test_a_priority_function_that_fails_is_an_error_and_never_a_nan(wrong):
    with pytest.raises(RewardError):
        priority([1.0], wrong)


def test_an_unknown_priority_function_is_named():
    with pytest.raises(ConfigError, match="lifo"):
        make_prioritizer("lifo")
