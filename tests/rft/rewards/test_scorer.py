"""The configured terms become one score; an error names what a user's function does wrong."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import pytest

from rft.config import RewardTerm
from rft.errors import ConfigError, RewardError
from rft.rewards.scorer import make_scorer
from schemas.events import Experience


def experience(response: str = "cba", answer: str | None = "cba", metadata: str = "{}", written: int = 3) -> Experience:
    return Experience(
        experience_id="g/0",
        group_id="g",
        number=0,
        sample=0,
        split="train",
        group_size=1,
        prompt="abc>",
        response=response,
        answer=answer,
        created_at=0,
        source="test",
        model="policy",
        action_mask=np.array([0, 0] + [1] * written, np.uint8),
        metadata=metadata,
    )


def score(*terms: dict[str, Any], of: Experience | None = None) -> tuple[float, dict[str, float]]:
    return make_scorer([RewardTerm.model_validate(term) for term in terms])(of or experience())


def mine(response: str, answer: str | None, *, prompt: str, metadata: dict[str, Any], **options: Any) -> float:
    assert prompt == "abc>"
    return len(response) + metadata.get("level", 0) + options.get("bonus", 0)


def bare(response: str, answer: str | None) -> bool:
    return response == answer


def counting(response: str, answer: str | None, *, written_tokens: int) -> int:
    return written_tokens


def exploding(response: str, answer: str | None) -> float:
    raise KeyError("oops")


def endless(response: str, answer: str | None) -> float:
    return float("inf")


def wordy(response: str, answer: str | None) -> Any:
    return "good"


def huge(response: str, answer: str | None) -> float:
    return 1e308


def listed(response: str, answer: str | None) -> Any:
    return [1]


def leaving(response: str, answer: str | None) -> float:
    sys.exit("bye")


def unnamed(response: str, answer: str | None) -> Any:
    return {3: 1.0}


def half(response: str, answer: str | None) -> Any:
    return {"answer": 1.0, "style": "x"}


def abstaining(response: str, answer: str | None) -> float | None:
    return None if response == "cba" else 1.0


def named(response: str, answer: str | None) -> dict[str, Any]:
    return {"answer": np.float32(1.0), "style": 0.25, "tests": None}


async def later(response: str, answer: str | None, *, bonus: float = 0.0) -> float:
    await asyncio.sleep(0)
    return 1.0 + bonus


async def never(response: str, answer: str | None) -> float:
    await asyncio.sleep(0)
    raise KeyError("oops")


class Opaque:
    def __float__(self) -> float:
        raise SystemExit("no")

    def __repr__(self) -> str:
        raise ValueError("no")


def opaque(response: str, answer: str | None) -> Any:
    return Opaque()


def forgotten(response: str, answer: str | None) -> Any:
    return later(response, answer)


def crowd(response: str, answer: str | None) -> Any:
    return {str(number): 1.0 for number in range(65)}


def test_rewards_are_summed_with_their_weights_and_kept_apart() -> None:
    terms = [
        {"function": "exact_match", "weight": 2.0},
        {"function": "format", "weight": 0.5, "options": {"pattern": "[a-z]+"}},
        {"function": "format", "weight": 0.25, "options": {"pattern": "[0-9]+"}},
        {"function": "length_penalty", "options": {"free": 1, "limit": 5}},
    ]
    total, rewards = score(*terms)
    assert rewards == {"exact_match": 1.0, "format": 1.0, "format#2": 0.0, "length_penalty": -0.5}
    assert total == 2.0 + 0.5 - 0.5


def test_a_users_function_gets_prompt_metadata_and_options() -> None:
    term = {"function": f"{__name__}:mine", "options": {"bonus": 10}}
    assert score(term, of=experience(metadata='{"level": 4}'))[0] == 17


def test_a_function_may_leave_out_parameters_that_it_does_not_use() -> None:
    assert score({"function": f"{__name__}:bare"})[0] == 1.0
    assert score({"function": f"{__name__}:counting"}, of=experience(written=7))[0] == 7


def test_none_abstains_so_that_the_term_does_not_count_for_this_sample() -> None:
    terms = [{"function": f"{__name__}:abstaining", "weight": 5.0}, {"function": "exact_match"}]
    assert score(*terms) == (1.0, {"exact_match": 1.0})
    assert score(*terms, of=experience("x")) == (5.0, {f"{__name__}:abstaining": 1.0, "exact_match": 0.0})


def test_a_sample_for_which_all_functions_abstain_has_no_reward() -> None:
    with pytest.raises(RewardError, match=r"no reward: .*:abstaining returned None"):
        score({"function": f"{__name__}:abstaining"})


def test_an_async_function_is_awaited() -> None:
    """Also where the caller runs on an event loop itself, as processors do."""
    term = {"function": f"{__name__}:later", "options": {"bonus": 0.5}}

    async def on_a_loop() -> float:
        return score(term)[0]

    assert score(term)[0] == 1.5
    assert asyncio.run(on_a_loop()) == 1.5


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_coroutine_of_a_plain_function_is_refused() -> None:
    with pytest.raises(RewardError, match="returned a coroutine; write it as 'async def'"):
        score({"function": f"{__name__}:forgotten"})


def test_several_rewards_of_one_function_are_summed_and_kept_apart() -> None:
    total, rewards = score({"function": f"{__name__}:named", "weight": 2.0}, {"function": "exact_match"})
    assert total == 2 * 1.25 + 1
    assert rewards == {f"{__name__}:named.answer": 1.0, f"{__name__}:named.style": 0.25, "exact_match": 1.0}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("exploding", "raised KeyError: 'oops'"),
        ("endless", "returned inf; rewards are finite"),
        ("huge", r"returned 1e\+308; rewards are finite and from -1e\+09 to 1e\+09"),
        ("wordy", "returned the text 'good', must be a number"),
        ("listed", r"returned \[1\], must be a number"),
        ("leaving", "raised SystemExit: bye"),
        ("unnamed", "returned a reward named 3; names are texts"),
        ("never", "raised KeyError: 'oops'"),
        ("opaque", "returned a Opaque, must be a number"),
        ("crowd", "returned 65 rewards, allowed: 64"),
        ("half", "half, style returned the text 'x', must be a number"),
    ],
)
def test_a_failing_function_is_a_reward_error_that_names_it(function: str, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        score({"function": f"{__name__}:{function}"})
    assert function in str(caught.value)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"function": "exact"}, "choose exact_match, numeric_match"),
        ({"function": "exact_match", "options": {"case": True}}, "unexpected keyword argument 'case'.*ignore_case"),
        ({"function": "format"}, "missing a required argument: 'pattern'; its options are pattern"),
        ({"function": "length_penalty", "options": {"limit": 3}}, "'free'"),
        ({"function": "length_penalty", "options": {"free": 9, "limit": 3}}, "free = 9, limit = 3: needs 0 <= free"),
        ({"function": "format", "options": {"pattern": "("}}, r"cannot work with pattern = '\(': missing \)"),
        ({"function": "numeric_match", "options": {"tolerance": "some"}}, "cannot work with tolerance = 'some'"),
        ({"function": "math_verify", "options": {"timeout_s": 0}}, "timeout_s must be above 0"),
        ({"function": f"{__name__}:mine", "options": {"prompt": "x"}}, "option 'prompt' would hide"),
        ({"function": f"{__name__}:nothing"}, "has no 'nothing'"),
    ],
)
def test_wrong_terms_are_refused_before_anything_is_scored(term: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_scorer([RewardTerm.model_validate(term)])


@pytest.mark.parametrize("metadata", ["", "[1]", "{", "[" * 100_000])
def test_metadata_that_is_not_an_object_is_a_reward_error(metadata: str) -> None:
    with pytest.raises(RewardError, match="metadata of g/0 is not"):
        score({"function": "exact_match"}, of=experience(metadata=metadata))


def test_a_task_without_an_answer_cannot_be_matched() -> None:
    for function in ("exact_match", "numeric_match", "math_verify"):
        with pytest.raises(RewardError, match=f"{function} needs the task's answer"):
            score({"function": function}, of=experience(answer=None))
