"""A task becomes a trajectory whose parts fit together; a workflow is found by its name."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from rft.errors import ConfigError
from rft.policy.base import Policy, Sampling
from rft.workflows.base import find_workflow, single_turn, takes_conversation
from rft.workflows.conversation import Conversation
from rft.workflows.trajectory import Trajectory
from schemas.events import Task

TASK = Task("train-00000000", 0, "train", "test", "word>", "drow", 1, 8, 1.0, 1.0, 0, 0, 0)


async def mine(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    return await single_turn(task, policy, sampling)


async def talks(task: Task, conversation: Conversation, note: str = "") -> None:
    return None


async def takes_one(task: Task) -> None:
    return None


def not_async(task: Task, policy: Policy, sampling: Sampling) -> None:
    return None


def test_a_single_turn_is_the_prompt_and_then_what_the_policy_wrote(policy: Policy) -> None:
    policy_version = policy.version
    trajectory = asyncio.run(single_turn(TASK, policy, Sampling(max_tokens=8, seed=3)))
    prompt_size = len(policy.encode("word>"))
    size = trajectory.tokens.size
    assert prompt_size < size <= prompt_size + 8
    assert policy.decode(trajectory.tokens[:prompt_size].tolist()) == "word>" == trajectory.prompt
    assert policy.decode(trajectory.tokens[prompt_size:].tolist()) == trajectory.response
    assert trajectory.action_mask.tolist() == [0] * prompt_size + [1] * (size - prompt_size)
    assert trajectory.versions.tolist() == [-1] * prompt_size + [policy_version] * (size - prompt_size)
    assert not trajectory.logprobs[:prompt_size].any()
    assert (trajectory.logprobs[prompt_size:] < 0).all()
    arrays: list[Any] = [trajectory.tokens, trajectory.action_mask, trajectory.logprobs, trajectory.versions]
    assert [array.dtype for array in arrays] == [np.int32, np.uint8, np.float32, np.int32]
    assert trajectory.finish_reason in ("stop", "length")


def test_workflows_are_found_by_name() -> None:
    assert find_workflow("single_turn") is single_turn
    mine_found, talks_found = (find_workflow(f"{__name__}:{name}") for name in ("mine", "talks"))
    assert (takes_conversation(mine_found), takes_conversation(talks_found)) == (False, True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("multi", "choose single_turn, chat, environment, react or package.module:function"),
        (f"{__name__}:none", "has no 'none'"),
        (f"{__name__}:takes_one", r"must take \(task, conversation\) or \(task, policy, sampling\), it takes \(task"),
        (f"{__name__}:not_async", "must be an 'async def' function"),
    ],
)
def test_a_wrong_workflow_is_a_configuration_error(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_workflow(name)
