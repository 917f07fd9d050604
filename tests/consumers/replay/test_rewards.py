"""Other rewards for the same experiences: by functions of today, by revisions that came later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from picked_events import picked

from consumers.replay.errors import ReplayError
from consumers.replay.rewards import functions, latest, revisions
from rft.config import ProcessorConfig
from schemas.events import Reward, ScoredExperience


def fails(response: str, answer: str | None) -> float:
    raise ValueError("no")


def settings(**fields: Any) -> ProcessorConfig:
    return ProcessorConfig.model_validate(fields)


def event(response: str = "ab", answer: str | None = "ab", **changes: Any) -> ScoredExperience:
    return picked(1, 1, response=response, answer=answer, **changes).scored


def test_functions_score_as_if_it_were_now_and_judge_the_member_anew() -> None:
    uniform = event(verdict="filtered", cause="uniform", reward=0.0)
    rescored = functions(settings())(uniform)
    assert (rescored.reward, rescored.rewards, rescored.verdict, rescored.cause) == (
        1.0, {"exact_match": 1.0}, "train", None,
    )  # fmt: skip
    assert functions(settings())(event("x")).reward == 0.0
    long = functions(settings(max_response_tokens=1))
    one = next(e for n in range(9) if (e := picked(1, n).scored).experience.action_mask.sum() > 1)
    assert long(one).cause == "too_long"


def test_a_function_that_fails_filters_the_experience() -> None:
    rescored = functions(settings(rewards=[{"function": f"{__name__}:fails"}]))(event())
    assert (rescored.verdict, rescored.cause, rescored.reward) == ("filtered", "score_failed", 0.0)


def test_a_demonstration_keeps_what_it_has() -> None:
    one = event(reward=0.3)
    one = replace(one, experience=replace(one.experience, kind="demonstration"))
    assert functions(settings())(one) == one
    assert revisions({one.experience.experience_id: {"human": 1.0}}, external())(one) == one


def external(**fields: Any) -> ProcessorConfig:
    return settings(external={"required": ["human"], **fields})


@given(st.permutations([(0, 0.5), (1, 0.7), (2, 0.9)]), st.floats(-1, 1))
def test_the_highest_revision_counts_whenever_it_came_and_of_equal_ones_the_first(
    order: list[tuple[int, float]], again: float
) -> None:
    said = [Reward("g/1", "g", "human", value, 1, revision) for revision, value in order]
    assert latest([*said, Reward("g/1", "g", "human", again, 1, 2)]) == {"g/1": {"human": 0.9}}


@pytest.mark.parametrize(
    ("fields", "reward"),
    [({}, 1.5), ({"weights": {"human": 2.0, "functions": 0.5}}, 1.5), ({"combine": "product"}, 0.5)],
)
def test_a_revision_is_combined_as_the_configuration_says(fields: dict[str, Any], reward: float) -> None:
    one = event(reward=1.2, rewards={"exact_match": 1.0, "human": 0.2})
    revised = revisions({one.experience.experience_id: {"human": 0.5, "unasked": 9.0}}, external(**fields))(one)
    assert revised.reward == pytest.approx(reward)
    assert dict(revised.rewards) == {"exact_match": 1.0, "human": 0.5}


def test_without_a_newer_value_the_recorded_one_stays_and_without_any_the_reward_is_missing() -> None:
    one = event(reward=1.2, rewards={"exact_match": 1.0, "human": 0.2})
    assert revisions({}, external())(one).reward == pytest.approx(1.2)
    none = event(reward=0.0, rewards={"exact_match": 1.0}, verdict="filtered", cause="reward_missing")
    assert revisions({}, external())(none).cause == "reward_missing"
    joined = revisions({none.experience.experience_id: {"human": 1.0}}, external())(none)
    assert (joined.verdict, joined.cause, joined.reward) == ("train", None, 2.0)


def test_what_was_filtered_for_other_reasons_stays_filtered() -> None:
    one = event(verdict="filtered", cause="too_long", reward=0.0)
    assert revisions({one.experience.experience_id: {"human": 1.0}}, external())(one) == one


def test_revisions_need_to_be_told_their_sources() -> None:
    with pytest.raises(ReplayError, match=r"processor\.external\.required"):
        revisions({}, settings())


def test_rescoring_keeps_what_external_sources_gave() -> None:
    one = event("x", reward=1.2, rewards={"exact_match": 1.0, "human": 0.2})
    rescored = functions(external())(one)
    assert dict(rescored.rewards) == {"exact_match": 0.0, "human": 0.2}
    assert rescored.reward == pytest.approx(0.2)
