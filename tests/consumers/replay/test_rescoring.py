"""Tests of other rewards for the same experiences: by today's functions, and by later revisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selected_events import selected_event

from consumers.replay import ReplayError
from consumers.replay.rescoring import by_external_rewards, by_functions, latest_values
from rft.config import ProcessorConfig
from schemas.events import Reward, ScoredExperience


def fails(response: str, answer: str | None) -> float:
    raise ValueError("no")


def settings(**fields: Any) -> ProcessorConfig:
    return ProcessorConfig.model_validate(fields)


def event(response: str = "ab", answer: str | None = "ab", **changes: Any) -> ScoredExperience:
    return selected_event(1, 1, response=response, answer=answer, **changes).scored


def test_functions_score_as_if_experiences_came_now_and_apply_the_rules_for_samples() -> None:
    uniform = event(verdict="filtered", cause="uniform", reward=0.0)
    rescored = by_functions(settings())(uniform)
    assert (rescored.reward, rescored.rewards, rescored.verdict, rescored.cause) == (
        1.0, {"exact_match": 1.0}, "train", None,
    )  # fmt: skip
    assert by_functions(settings())(event("x")).reward == 0.0
    long = by_functions(settings(max_response_tokens=1))
    one = next(each for n in range(9) if (each := selected_event(1, n).scored).experience.action_mask.sum() > 1)
    assert long(one).cause == "too_long"


def test_a_function_that_fails_filters_the_experience() -> None:
    rescored = by_functions(settings(rewards=[{"function": f"{__name__}:fails"}]))(event())
    assert (rescored.verdict, rescored.cause, rescored.reward) == ("filtered", "score_failed", 0.0)


def test_a_demonstration_keeps_its_reward() -> None:
    one = event(reward=0.3)
    one = replace(one, experience=replace(one.experience, kind="demonstration"))
    assert by_functions(settings())(one) == one
    assert by_external_rewards({one.experience.experience_id: {"human": 1.0}}, external())(one) == one


def test_samples_of_several_rows_are_not_scored_again_and_share_the_reward_for_their_sample() -> None:
    one = event(rewards={"given": 0.25})
    group = one.experience.group_id
    rows = [
        replace(one, experience=replace(one.experience, experience_id=f"{group}/0/{row}", sample=0, row=row, rows=2))
        for row in range(2)
    ]
    assert {by_functions(settings())(row).cause for row in rows} == {"several_rows"}
    for name in (f"{group}/0", f"{group}/0/1"):
        again = [by_external_rewards({name: {"human": 0.5}}, external())(row) for row in rows]
        assert [(row.reward, row.cause) for row in again] == [(0.75, None)] * 2
    earlier = by_external_rewards({f"{group}/0/0": {"human": 0.5}}, external())
    assert {earlier(row).cause for row in rows} == {"reward_missing"}


def external(**fields: Any) -> ProcessorConfig:
    return settings(external={"required": ["human"], **fields})


@given(st.permutations([(0, 0.5), (1, 0.7), (2, 0.9)]), st.floats(-1, 1))
def test_the_highest_revision_counts_in_any_order_and_of_equal_ones_the_first(
    order: list[tuple[int, float]], repeated: float
) -> None:
    rewards = [Reward("g/1", "g", "human", value, 1, revision) for revision, value in order]
    assert latest_values([*rewards, Reward("g/1", "g", "human", repeated, 1, 2)]) == {"g/1": {"human": 0.9}}


@pytest.mark.parametrize(
    ("fields", "reward"),
    [({}, 1.5), ({"weights": {"human": 2.0, "functions": 0.5}}, 1.5), ({"combine": "product"}, 0.5)],
)
def test_a_revision_is_combined_as_the_configuration_says(fields: dict[str, Any], reward: float) -> None:
    one = event(reward=1.2, rewards={"exact_match": 1.0, "human": 0.2})
    values = {one.experience.experience_id: {"human": 0.5, "unconfigured": 9.0}}
    revised = by_external_rewards(values, external(**fields))(one)
    assert revised.reward == pytest.approx(reward)
    assert dict(revised.rewards) == {"exact_match": 1.0, "human": 0.5}


def test_without_a_newer_value_the_recorded_one_counts_and_without_any_the_reward_is_missing() -> None:
    one = event(reward=1.2, rewards={"exact_match": 1.0, "human": 0.2})
    assert by_external_rewards({}, external())(one).reward == pytest.approx(1.2)
    none = event(reward=0.0, rewards={"exact_match": 1.0}, verdict="filtered", cause="reward_missing")
    assert by_external_rewards({}, external())(none).cause == "reward_missing"
    joined = by_external_rewards({none.experience.experience_id: {"human": 1.0}}, external())(none)
    assert (joined.verdict, joined.cause, joined.reward) == ("train", None, 2.0)


def test_an_experience_that_was_filtered_for_another_cause_stays_filtered() -> None:
    one = event(verdict="filtered", cause="too_long", reward=0.0)
    assert by_external_rewards({one.experience.experience_id: {"human": 1.0}}, external())(one) == one


def test_external_rewards_need_configured_sources() -> None:
    with pytest.raises(ReplayError, match=r"processor\.external\.required"):
        by_external_rewards({}, settings())


def test_rescoring_by_functions_keeps_the_values_of_external_sources() -> None:
    one = event("x", reward=1.2, rewards={"exact_match": 1.0, "human": 0.2})
    rescored = by_functions(external())(one)
    assert dict(rescored.rewards) == {"exact_match": 0.0, "human": 0.2}
    assert rescored.reward == pytest.approx(0.2)
