"""The workflow ``react`` with real tokens of model families: calls, answers, faults, limits, and what it counts."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))

from test_conversation import SAMPLING, TASK, Scripted

from rft.config import RolloutConfig
from rft.config.mcp import McpConfig
from rft.errors import ConfigError
from rft.workflows.rollout import Rollout
from rft.workflows.running import run_workflow
from rft.workflows.tools.react import ReactWorkflow

SERVER = str(Path(__file__).with_name("mcp_demo_server.py"))


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def sleepy() -> str:
    """Sleep."""
    time.sleep(2)
    return "late"


def react(
    family: str, texts: Sequence[str], *, tools: Sequence[str] = ("double", "sleepy"), **settings: Any
) -> tuple[Scripted, Rollout]:
    policy = Scripted(family, [(text, True) for text in texts])
    config = RolloutConfig(workflow="react", tools=[f"{__name__}:{name}" for name in tools], **settings)

    async def run() -> Rollout:
        workflow = ReactWorkflow(config)
        try:
            return await run_workflow(workflow, TASK, policy, SAMPLING)  # type: ignore[arg-type]
        finally:
            await workflow.close()

    return policy, asyncio.run(run())


def call(number: object, name: str = "double") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"number": {json.dumps(number)}}}}}\n</tool_call>'


def read(policy: Scripted, turn: int) -> str:
    return policy.chat.decode(policy.calls[turn][0], special=True)


def test_calls_are_answered_until_a_turn_has_none() -> None:
    policy, rollout = react("qwen3", [f"Let me see.\n{call(4)}\n{call(5)}", call(8), "It is 16."])
    assert rollout.outcome.metadata == {"turns": 3, "tool_calls": 3, "failed_calls": 0, "ended": "answered"}
    assert '"description": "Double a number."' in read(policy, 0)
    assert "<tool_response>\n8\n</tool_response>\n<tool_response>\n10\n</tool_response>" in read(policy, 1)
    assert "<tool_response>\n16\n</tool_response>" in read(policy, 2)
    (row,) = rollout.rows
    written = [token for _, tokens in policy.calls for token in tokens]
    assert row.tokens[row.action_mask == 1].tolist() == written
    assert row.tokens.tolist() == [*policy.calls[2][0], *policy.calls[2][1]]
    assert np.isfinite(row.logprobs).all()
    assert row.response == "It is 16."


def test_what_goes_wrong_is_the_tools_answer() -> None:
    texts = [
        f'<tool_call>{{"name": "double", oops}}</tool_call>{call("four")}{call(1, "doubles")}{call(1, "sleepy")}',
        "I give up.",
    ]
    policy, rollout = react("qwen3", texts, tool_timeout_s=0.2)
    assert rollout.outcome.metadata == {"turns": 2, "tool_calls": 4, "failed_calls": 4, "ended": "answered"}
    told = read(policy, 1)
    for part in (
        "The tool call could not be read: Expecting property name",
        "number: Input should be a valid integer",
        "there is no tool 'doubles'. Did you mean double?",
        "wrong arguments for sleepy: number: Extra inputs",
    ):
        assert part in told
    policy, rollout = react("qwen3", ['<tool_call>{"name": "sleepy"}</tool_call>', "Too slow."], tool_timeout_s=0.2)
    assert "Error: sleepy did not answer within 0.2 s." in read(policy, 1)
    assert rollout.outcome.metadata["failed_calls"] == 1


def test_the_number_of_turns_is_bounded() -> None:
    policy, rollout = react("qwen3", [call(1)] * 5, max_turns=3)
    assert len(policy.calls) == 3
    assert rollout.outcome.metadata == {"turns": 3, "tool_calls": 2, "failed_calls": 0, "ended": "max_turns"}


def test_a_spent_budget_ends_the_rollout_and_keeps_it() -> None:
    policy = Scripted("qwen3", [(call(1), True)] * 5)
    config = RolloutConfig(workflow="react", tools=[f"{__name__}:double"])
    sampling = type(SAMPLING)(max_tokens=len(policy.chat.encode(call(1))) + 1, seed=1)
    rollout = asyncio.run(run_workflow(ReactWorkflow(config), TASK, policy, sampling))  # type: ignore[arg-type]
    assert rollout.outcome.metadata["ended"] == "max_tokens"
    assert len(policy.calls) == 1


def test_an_answer_that_is_cut_at_the_token_limit_is_told_from_a_whole_one() -> None:
    policy = Scripted("qwen3", [("It is", False)])
    workflow = ReactWorkflow(RolloutConfig(workflow="react", tools=[f"{__name__}:double"]))
    rollout = asyncio.run(run_workflow(workflow, TASK, policy, SAMPLING))  # type: ignore[arg-type]
    assert rollout.outcome.metadata["ended"] == "max_tokens"


@pytest.mark.parametrize(
    ("family", "tool_format", "text", "answer"),
    [
        ("gemma", "auto", "```tool_code\nprint(double(number=4))\n```", "```tool_output\n8\n```"),
        ("llama3", "llama_json", '{"name": "double", "parameters": {"number": 4}}', "\n\n8<|eot_id|>"),
        ("smollm2", "hermes", call(4), "<|im_start|>tool\n8<|im_end|>"),
    ],
)
def test_a_template_without_tools_gets_them_in_the_first_message(
    family: str, tool_format: Any, text: str, answer: str
) -> None:
    policy, rollout = react(family, [text, "8."], tool_format=tool_format)
    assert "You may call these functions:\n{" in read(policy, 0)
    assert "To call one, write:" in read(policy, 0)
    assert TASK.prompt in read(policy, 0)
    assert answer in read(policy, 1)
    assert rollout.outcome.metadata == {"turns": 2, "tool_calls": 1, "failed_calls": 0, "ended": "answered"}
    assert len(rollout.rows) == 1


def test_tools_of_an_mcp_server_are_called_by_many_rollouts() -> None:
    config = RolloutConfig(
        workflow="react", tools=[f"{__name__}:double"], mcp=[McpConfig(command=[sys.executable, SERVER])]
    )
    text = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'

    async def main() -> list[str]:
        workflow = ReactWorkflow(config)
        policies = [Scripted("qwen3", [(text + call(4), True), ("5 and 8", True)]) for _ in range(5)]
        try:
            await asyncio.gather(
                *(run_workflow(workflow, TASK, policy, SAMPLING) for policy in policies)  # type: ignore[arg-type]
            )
        finally:
            await workflow.close()
        return [read(policy, 1) for policy in policies]

    for told in asyncio.run(main()):
        assert "<tool_response>\n5\n</tool_response>\n<tool_response>\n8\n</tool_response>" in told


def test_what_cannot_work_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"set rollout\.tools or rollout\.mcp"):
        ReactWorkflow(RolloutConfig(workflow="react"))
    with pytest.raises(ConfigError, match="has no 'dooble'; did you mean 'double'"):
        ReactWorkflow(RolloutConfig(workflow="react", tools=[f"{__name__}:dooble"]))
    with pytest.raises(ValueError, match="names no function"):
        RolloutConfig(tools=["double"])
    with pytest.raises(ConfigError, match="does not tell how it writes tool calls"):
        react("smollm2", ["no call"])
