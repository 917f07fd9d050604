"""Agents as they are: what trains is what the policy read and wrote for them, whatever SDK they use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producers.explorer.agent_rollouts import find_agent
from producers.gateway.rollout_gateway import RolloutGateway
from rft.config import GatewayConfig, PolicyConfig, RolloutConfig
from rft.errors import ConfigError, PolicyError, RolloutError
from rft.policy.base import Sampling
from rft.policy.transformers.policy import TransformersPolicy
from rft.workflows.rollout import Rollout
from tests.producers import agent_functions
from tests.producers.agent_running import MAX_TOKENS, roll
from tests.producers.calling_model import ANSWER, make_calling_model
from tests.producers.chat_model import check_logprobs
from tests.producers.recording_policy import RecordingPolicy, check_rows
from tests.producers.roles import task

SDKS = "tests.producers.sdk_agents"
FUNCTIONS = agent_functions.__name__


@pytest.mark.parametrize(
    ("agent", "turns", "rows"),
    [
        ("openai_chat", 3, 1),
        ("openai_streaming", 3, 1),
        ("openai_responses", 2, 1),
        ("anthropic_messages", 3, 1),
        ("langgraph_loop", 3, 1),
        ("smolagents_code", 3, None),
    ],
)
def test_an_agent_with_an_sdk_trains_on_the_exact_tokens(
    recording: RecordingPolicy, chat_model: Path, agent: str, turns: int, rows: int | None
) -> None:
    rollout = roll(recording, agent=f"{SDKS}:{agent}")
    assert isinstance(rollout, Rollout), rollout
    assert len(recording.calls) == turns
    assert rows is None or len(rollout.rows) == rows
    check_rows(recording, rollout)
    check_logprobs(chat_model, rollout.rows)


@pytest.fixture(scope="module")
def calling_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_calling_model(tmp_path_factory.mktemp("calling"))


@pytest.fixture(scope="module")
def calling_policy(calling_model: Path) -> Iterator[TransformersPolicy]:
    policy = TransformersPolicy(PolicyConfig(model=str(calling_model), device="cpu"))
    yield policy
    policy.close()


@pytest.mark.parametrize("agent", ["openai_tools", "anthropic_tools", "langgraph_tools"])
def test_an_agent_that_calls_tools_goes_on_in_one_row(
    calling_policy: TransformersPolicy, calling_model: Path, agent: str
) -> None:
    recording = RecordingPolicy(calling_policy)
    rollout = roll(recording, greedy=True, agent=f"{SDKS}:{agent}")
    assert isinstance(rollout, Rollout), rollout
    assert rollout.outcome.metadata == {"said": ANSWER}
    assert rollout.turns_of_rows == ((0, 1),)
    check_rows(recording, rollout)
    check_logprobs(calling_model, rollout.rows)


def test_outcomes_reach_the_rollout(recording: RecordingPolicy) -> None:
    outcome = roll(recording, agent=f"{FUNCTIONS}:outcome").outcome
    assert (outcome.reward, outcome.turn_rewards, outcome.metadata["number"]) == (0.5, {0: 0.25}, 0)
    assert roll(recording, agent=f"{FUNCTIONS}:sends_rewards").outcome.reward == 0.75


def test_a_failed_try_is_repeated_with_a_session_of_its_own(recording: RecordingPolicy) -> None:
    agent_functions.tries.clear()
    rollout = roll(recording, retries=1, agent=f"{FUNCTIONS}:raises_once")
    assert (rollout.outcome.reward, len(rollout.rows), len(recording.calls)) == (1.0, 1, 2)


@pytest.mark.parametrize(
    ("agent", "cause"),
    [
        ("exits", "SystemExit: enough"),
        ("exits_async", "SystemExit: 3"),
        ("asks_nothing", "ended without a turn of the policy"),
        ("returns_text", "the workflow's reward is 'very good'"),
    ],
)
def test_an_agent_that_fails_is_one_clear_error(recording: RecordingPolicy, agent: str, cause: str) -> None:
    error = roll(recording, agent=f"{FUNCTIONS}:{agent}")
    assert isinstance(error, RolloutError)
    assert cause in str(error)


def test_a_function_that_hangs_fails_at_the_deadline_and_is_locked_out(recording: RecordingPolicy) -> None:
    agent_functions.left.clear()
    began = time.monotonic()
    error = roll(recording, deadline_s=1.0, agent=f"{FUNCTIONS}:hangs")
    assert time.monotonic() - began < 2.0
    assert "ran past its deadline of 1 s" in str(error)
    while not agent_functions.left:
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    assert agent_functions.left in (["APIStatusError"], ["APIConnectionError"], ["ConflictError"])


def test_a_synchronous_client_in_an_async_function_gets_its_answer(recording: RecordingPolicy) -> None:
    rollouts = roll(recording, samples=4, agent=f"{FUNCTIONS}:blocks_the_loop")
    assert [rollout.outcome.reward for rollout in rollouts] == [1.0] * 4


def test_an_agent_that_spends_all_its_tokens_is_cut_and_not_failed(recording: RecordingPolicy) -> None:
    rollout = roll(recording, agent=f"{FUNCTIONS}:spends_all")
    assert rollout.rows[-1].finish_reason == "length"
    assert rollout.outcome.reward is None
    assert sum(int(row.action_mask.sum()) for row in rollout.rows) == MAX_TOKENS
    check_rows(recording, rollout)


def test_an_agent_may_not_reach_another_ones_session(recording: RecordingPolicy) -> None:
    agent_functions.seen_keys.clear()
    rollouts = roll(recording, samples=2, agent=f"{FUNCTIONS}:reaches_for_another")
    assert [getattr(rollout, "outcome", rollout).reward for rollout in rollouts] == [1.0, 1.0]


def test_concurrent_agents_get_the_tokens_of_their_own_sessions(recording: RecordingPolicy, chat_model: Path) -> None:
    rollouts = roll(recording, samples=16, agent=f"{SDKS}:openai_chat")
    assert all(len(rollout.rows) == 1 for rollout in rollouts)
    check_rows(recording, *rollouts)
    check_logprobs(chat_model, [rollout.rows[0] for rollout in rollouts])


@pytest.mark.parametrize(
    ("way", "cause"),
    [
        ({"agent": f"{FUNCTIONS}:takes_too_much"}, "takes 'model', which an explorer does not give"),
        ({"agent": f"{FUNCTIONS}:absent"}, "has no 'absent'"),
        ({"agent": "absent"}, "rollout.agent = 'absent' is unknown"),
        ({"command": ["no-such-program"]}, "there is no program 'no-such-program'"),
        ({"command": ["python"], "command_env": {"KEY": "$RFT_NOT_SET"}}, "RFT_NOT_SET, which is not set"),
    ],
)
def test_what_cannot_work_is_said_before_the_run(way: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause.replace("$", r"\$")):
        find_agent(RolloutConfig(**way))


def test_only_one_way_to_roll_out_may_be_named() -> None:
    with pytest.raises(ValueError, match=r"set one of rollout\.agent and rollout\.command"):
        RolloutConfig(agent="a.b:c", command=["python"])


def test_a_rollout_does_not_wait_for_a_gateway_that_has_ended(recording: RecordingPolicy) -> None:
    async def use() -> None:
        gateway = RolloutGateway(GatewayConfig(), recording, "policy")
        gateway.start()
        with pytest.raises(PolicyError, match="the gateway has ended"):
            async with gateway.session(task(0), recording, Sampling(max_tokens=8)):
                await asyncio.to_thread(gateway.close)

    asyncio.run(asyncio.wait_for(use(), 60))
