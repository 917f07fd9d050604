"""A workflow's mistake fails one try of one rollout with one clear error, and a second generation draws anew."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.errors import RolloutError
from rft.policy.base import Policy, Sampling
from rft.workflows.base import single_turn
from rft.workflows.experiences import make_experience
from rft.workflows.running import run_workflow
from rft.workflows.seeded_policy import seed_of_call
from rft.workflows.trajectory import Trajectory
from rft.workflows.trajectory_check import check_trajectory
from schemas.codec import decode, encode
from schemas.events import Experience, Task

TASK = Task("train-00000000", 0, "train", "test", "word>", "drow", 1, 8, 1.0, 1.0, 0, 0, 0)
GOOD = Trajectory(
    "ab",
    "cd",
    np.array([1, 2, 3, 4], np.int32),
    np.array([0, 0, 1, 1], np.uint8),
    np.array([0, 0, -0.5, -1.5], np.float32),
    np.array([-1, -1, 3, 4], np.int32),
    "stop",
)


def test_a_good_trajectory_passes_as_it_is() -> None:
    checked = check_trajectory(GOOD)
    assert all(np.array_equal(getattr(checked, name), getattr(GOOD, name)) for name in ("tokens", "logprobs"))


def test_lists_and_wider_dtypes_are_converted() -> None:
    given = replace(
        GOOD,
        tokens=[1, 2, 3, 4],
        action_mask=[False, False, True, True],
        logprobs=GOOD.logprobs.astype(np.float64),
        versions=GOOD.versions.astype(np.int64),
    )
    checked = check_trajectory(given)
    assert [array.dtype for array in (checked.tokens, checked.action_mask, checked.logprobs, checked.versions)] == [
        np.int32,
        np.uint8,
        np.float32,
        np.int32,
    ]
    assert checked.action_mask.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": np.arange(5)}, "action_mask has 4 elements, but tokens has 5"),
        ({"logprobs": np.array([0, 0, np.nan, -1])}, "logprobs holds values that are not finite"),
        ({"logprobs": np.array([0, 0, -np.inf, -1])}, "logprobs holds values that are not finite"),
        ({"logprobs": np.array([0, 0, 1e40, -1])}, "logprobs holds values that are not finite"),
        ({"logprobs": np.array([0, 0, 0.5, -1])}, "at most 0"),
        ({"logprobs": np.array([0, -1, -0.5, -1])}, "logprobs is not 0"),
        ({"logprobs": ["a"] * 4}, "logprobs has the dtype"),
        ({"action_mask": [0, 0, 2, 1]}, "action_mask holds 2"),
        ({"action_mask": [0, 0, -1, 1]}, "do not fit uint8"),
        ({"action_mask": [0.0, 0, 1, 1]}, "dtype float64, it must hold 0 and 1"),
        ({"tokens": [1, 2, 3, 2**40]}, "do not fit int32"),
        ({"tokens": [1, 2, 3, -4]}, "token ids are not negative"),
        ({"tokens": [[1, 2], [3, 4]]}, "one dimension"),
        ({"tokens": [[1], [2, 3], 4, 5]}, "tokens is no array"),
        ({"tokens": None}, "tokens has the shape"),
        ({"versions": [-1, -1, -1, 4]}, "names no weight version"),
        ({"versions": [-1, 0, 3, 4]}, "versions must be -1"),
        ({"finish_reason": "tool_calls"}, "allowed: stop, length"),
        ({"finish_reason": "error"}, "allowed: stop, length"),
        ({"response": None}, "response is None"),
        ({"prompt": b"ab"}, "prompt is a value of type bytes"),
        ({"response": "\ud800"}, "response cannot be written as UTF-8"),
        (
            {name: [] for name in ("tokens", "action_mask", "logprobs", "versions")},
            "tokens is empty",
        ),
    ],
)
def test_a_trajectory_that_does_not_fit_names_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RolloutError, match=f"trajectory is invalid: .*{message}"):
        check_trajectory(replace(GOOD, **changes))


@pytest.mark.parametrize("returned", [None, "text", {"response": "x"}, 3])
def test_something_else_than_a_trajectory_is_named(returned: object) -> None:
    with pytest.raises(RolloutError, match="it must return a Trajectory"):
        check_trajectory(returned)


texts = st.text(st.characters(codec="utf-8"), max_size=5)


@given(
    prompt=texts,
    tokens=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8),
    data=st.data(),
)
def test_what_passes_can_be_published(prompt: str, tokens: list[int], data: st.DataObject) -> None:
    size = len(tokens)
    mask = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    values = data.draw(st.lists(st.floats(-1e30, 0), min_size=size, max_size=size))
    given = Trajectory(
        prompt,
        prompt,
        np.array(tokens),
        np.array(mask),
        np.where(mask, values, 0.0),
        np.where(mask, 7, -1),
        "length",
    )
    made = make_experience(TASK, 0, check_trajectory(given), source="test", model="tiny", now_ms=1, duration_ms=1)
    assert decode(encode(made), Experience).tokens.tolist() == tokens


def test_a_second_generation_draws_other_tokens_and_a_repeated_rollout_the_same(policy: Policy) -> None:
    """The policy is a random model: what it draws is nearly uniform."""
    drawn: list[list[int]] = []

    async def twice(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
        prompt = policy.encode(task.prompt)
        drawn.append((await policy.generate(prompt, sampling)).tokens.tolist())
        return await single_turn(task, policy, sampling)

    sampling = Sampling(max_tokens=16, seed=5)
    for _ in range(2):
        (returned,) = asyncio.run(run_workflow(twice, TASK, policy, sampling)).rows
        drawn.append(returned.tokens[returned.action_mask == 1].tolist())
    assert drawn[0] != drawn[1]
    assert drawn[:2] == drawn[2:]


def test_a_seed_that_the_workflow_chose_stays(policy: Policy) -> None:
    seeds = []

    class Recording:
        async def generate(self, _prompt: object, sampling: Sampling) -> None:
            seeds.append(sampling.seed)

    async def workflow(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
        for one in (sampling, replace(sampling, seed=77), sampling, replace(sampling, max_tokens=2)):
            await policy.generate([1], one)
        return GOOD

    asyncio.run(run_workflow(workflow, TASK, Recording(), Sampling(max_tokens=4, seed=5)))
    assert seeds == [5, 77, seed_of_call(5, 1), seed_of_call(5, 2)]
    assert len({5, *seeds}) == 4
