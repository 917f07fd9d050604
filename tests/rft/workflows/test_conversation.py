"""A conversation's tokens are exactly those that the policy read and wrote, whatever the chat template does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_models import FAMILIES, chat_tokenizer, make_chat_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rft.config import PolicyConfig
from rft.errors import RequestError, RolloutError, TokenBudgetError
from rft.policy.base import Generation, Sampling
from rft.policy.chat_template import ChatTemplate
from rft.policy.loading import load_model
from rft.policy.transformers.policy import TransformersPolicy
from rft.workflows.base import chat, single_turn
from rft.workflows.conversation import Conversation, Turn
from rft.workflows.rollout import Outcome
from rft.workflows.running import run_workflow
from schemas.events import Task

TASK = Task("train-00000000", 0, "train", "test", "How are you?", None, 1, 4096, 1.0, 1.0, 5, 0, 0)
SAMPLING = Sampling(max_tokens=4096, seed=7)


class Scripted:
    """Writes given texts in real tokens of a family, and records what it reads. Its logprobs tell tokens apart."""

    version, error, stats, receivers, context = 3, None, {}, 0, 100_000

    def __init__(self, family: str, texts: Sequence[tuple[str, bool]]) -> None:
        self.tokenizer = chat_tokenizer(family)
        self.chat = ChatTemplate(self.tokenizer)
        self.texts = list(texts)
        self.calls: list[tuple[list[int], list[int]]] = []
        self.samplings: list[Sampling] = []

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Generation:
        text, ends = self.texts[len(self.calls)]
        written = self.chat.encode(text) + ([int(self.tokenizer.eos_token_id)] if ends else [])
        self.calls.append((list(prompt), written))
        self.samplings.append(sampling)
        logprobs = np.array([-(number % 97 + 1) / 100 for number in range(len(written))], np.float32)
        versions = np.full(len(written), len(self.calls), np.int32)
        reason = "stop" if ends or sampling.stop else "length"
        return Generation(np.array(written, np.int32), logprobs, versions, reason)


def converse(family: str, texts: Sequence[tuple[str, bool]], users: Sequence[str]) -> tuple[Scripted, Conversation]:
    policy = Scripted(family, texts)

    async def run() -> Conversation:
        conversation = Conversation(TASK, policy, SAMPLING)
        for user in users:
            conversation.user(user)
            await conversation.generate()
        return conversation

    return policy, asyncio.run(run())


def assert_exact(policy: Scripted, conversation: Conversation) -> None:
    """Each call's prompt and answer stand in one row, unmasked only where the policy wrote in it."""
    rows, by_row = conversation.rows(), conversation.turns_of_rows()
    assert sorted(turn for row in by_row for turn in row) == list(range(len(policy.calls)))
    for row, turns in zip(rows, by_row, strict=True):
        last_prompt, last_written = policy.calls[turns[-1]]
        assert row.tokens.tolist() == last_prompt + last_written
        expected = np.zeros(row.tokens.size, np.uint8)
        for turn in turns:
            prompt, written = policy.calls[turn]
            assert row.tokens[: len(prompt) + len(written)].tolist() == prompt + written
            expected[len(prompt) : len(prompt) + len(written)] = 1
            assert set(row.versions[len(prompt) : len(prompt) + len(written)]) == {turn + 1}
        assert row.action_mask.tolist() == expected.tolist()
        assert not row.logprobs[expected == 0].any()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<>|"), max_size=12)
BODY = st.one_of(
    TEXT,
    TEXT.map(lambda text: f"<think>\n{text.strip()}\n</think>\n\nSo be it."),
    TEXT.map(lambda text: f"<think>{text}</think>yes"),
    TEXT.map(lambda text: f"  {text}\n\n"),
    st.just('<tool_call>\n{"name":"add",  "arguments": {"a":1}}\n</tool_call>'),
    st.just(""),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(FAMILIES)), st.lists(st.tuples(BODY, st.booleans(), TEXT), min_size=1, max_size=5))
def test_every_token_read_and_written_is_in_a_row_and_only_written_ones_are_learned(
    family: str, script: list[tuple[str, bool, str]]
) -> None:
    # A turn of no token cannot be: a policy writes at least its end.
    texts = [(text, ends or not text) for text, ends, _ in script]
    policy, conversation = converse(family, texts, [user for *_, user in script])
    assert_exact(policy, conversation)
    # Each prompt says what the template says of the conversation, but for white space in the policy's own words.
    messages: list[dict[str, str]] = []
    for (text, _, user), (prompt, _) in zip(script, policy.calls, strict=True):
        messages.append({"role": "user", "content": user})
        rendered = policy.chat.render(messages, prompting=True)
        assert "".join(policy.chat.decode(prompt, special=True).split()) == "".join(rendered.split())
        messages.append({"role": "assistant", "content": text})


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_conversation_is_one_row_of_what_the_template_renders(family: str) -> None:
    policy, conversation = converse(family, [("One.", True), ("Two.", True)], ["a", "b"])
    assert_exact(policy, conversation)
    (row,) = conversation.rows()
    messages = list(conversation.messages)
    assert policy.chat.decode(row.tokens.tolist(), special=True) == policy.chat.render(
        messages[:3], prompting=True
    ) + "Two." + str(policy.tokenizer.eos_token)
    assert [message["content"] for message in messages] == ["a", "One.", "b", "Two."]
    assert (row.response, row.finish_reason) == ("Two.", "stop")


@pytest.mark.parametrize("family", ["llama3", "gemma"])
def test_the_first_token_stands_once_whether_chat_or_text(family: str, tmp_path: Path) -> None:
    policy = TransformersPolicy(PolicyConfig(model=str(make_chat_model(tmp_path, family)), device="cpu"))
    try:
        first = policy.chat.encode(str(FAMILIES[family].first))
        rendered = policy.chat.render([{"role": "user", "content": "hi"}], prompting=True)
        assert policy.chat.encode(rendered)[:2].count(first[0]) == 1
        assert policy.encode(rendered) == policy.chat.encode(rendered)
        assert policy.encode("plain")[:2].count(first[0]) == 1
    finally:
        policy.close()


def test_a_template_that_drops_earlier_thinking_begins_another_row() -> None:
    thought = "<think>\nHm.\n</think>\n\nOne."
    policy, conversation = converse("qwen3", [(thought, True), ("Two.", True), ("Three.", True)], ["a", "b", "c"])
    assert_exact(policy, conversation)
    assert conversation.turns_of_rows() == ((0,), (1, 2))
    assert "Hm." not in policy.chat.decode(policy.calls[1][0], special=True)
    assert (conversation.turns[0].reply.thinking, conversation.turns[0].content) == ("Hm.", "One.")
    assert conversation.messages[1]["content"] == "One."


def test_thinking_between_tool_calls_stays_in_one_row() -> None:
    policy = Scripted("qwen3", [("<think>\nAdd.\n</think>\n\n<tool_call>\n{}\n</tool_call>", True), ("3", True)])

    async def run() -> Conversation:
        conversation = Conversation(TASK, policy, SAMPLING)
        conversation.user("1+2?")
        await conversation.generate()
        conversation.add({"role": "tool", "content": "3"})
        await conversation.generate()
        return conversation

    conversation = asyncio.run(run())
    assert_exact(policy, conversation)
    assert conversation.turns_of_rows() == ((0, 1),)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_a_template_trims_stays_as_the_policy_wrote_it(family: str) -> None:
    policy, conversation = converse(family, [("  One. \n", True), ("Two.", True)], ["a", "b"])
    assert_exact(policy, conversation)
    assert conversation.turns_of_rows() == ((0, 1),)
    assert "  One. \n" in policy.chat.decode(conversation.rows()[0].tokens.tolist(), special=True)


def test_a_turn_cut_at_its_limit_is_closed_as_the_template_closes_it() -> None:
    policy, conversation = converse("llama3", [("One", False), ("Two", True)], ["a", "b"])
    assert_exact(policy, conversation)
    (row,) = conversation.rows()
    assert "One<|eot_id|><|start_header_id|>user" in policy.chat.decode(row.tokens.tolist(), special=True)
    closing = policy.chat.encode("<|eot_id|>")[0]
    assert row.action_mask[row.tokens == closing].tolist() == [0, 0, 0, 1]


def test_a_stop_text_ends_the_turn_and_stays_in_its_tokens() -> None:
    policy = Scripted("smollm2", [("abc STOP", False), ("d", True)])

    async def run() -> tuple[Turn, Conversation]:
        conversation = Conversation(TASK, policy, SAMPLING)
        conversation.user("?")
        turn = await conversation.generate(stop=["STOP"])
        conversation.user("!")
        await conversation.generate()
        return turn, conversation

    turn, conversation = asyncio.run(run())
    assert (turn.text, turn.raw, turn.finish_reason) == ("abc ", "abc ", "stop")
    assert policy.samplings[0].stop == ("STOP",)
    assert_exact(policy, conversation)


def test_the_budget_counts_over_all_turns_and_a_rollout_cut_at_it_is_kept() -> None:
    policy = Scripted("smollm2", [("abcd", False), ("efgh", False), ("no", True)])

    async def talk(task: Task, conversation: Conversation) -> float:
        while True:
            conversation.user("more")
            await conversation.generate(max_tokens=4)

    rollout = asyncio.run(run_workflow(talk, TASK, policy, Sampling(max_tokens=8, seed=1)))
    assert [sampling.max_tokens for sampling in policy.samplings] == [4, 4]
    assert rollout.rows[-1].finish_reason == "length"
    assert rollout.outcome == Outcome()


def test_a_conversation_that_does_not_fit_the_context_says_so() -> None:
    policy = Scripted("smollm2", [("a", True)])
    policy.context = 40
    conversation = Conversation(TASK, policy, SAMPLING)
    conversation.user("x" * 40)
    with pytest.raises(RequestError, match="context of 40: shorten the task's messages"):
        asyncio.run(conversation.generate())


def test_a_spent_budget_is_told() -> None:
    policy = Scripted("smollm2", [("a", True)])
    conversation = Conversation(TASK, policy, Sampling(max_tokens=2, seed=1))
    conversation.user("x")
    asyncio.run(conversation.generate())
    conversation.user("y")
    with pytest.raises(TokenBudgetError, match="all 2 tokens of this rollout"):
        asyncio.run(conversation.generate())


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        (None, Outcome()),
        (1, Outcome(1.0)),
        (np.float32(0.5), Outcome(0.5)),
        ({"format": 1, "right": False}, Outcome(rewards={"format": 1.0, "right": 0.0})),
        (Outcome(turn_rewards={0: 2}, metadata={"steps": 3}), Outcome(turn_rewards={0: 2.0}, metadata={"steps": 3})),
    ],
)
def test_a_workflow_returns_rewards_or_nothing(returned: Any, outcome: Outcome) -> None:
    rollout = asyncio.run(run_workflow(returning(returned), TASK, Scripted("smollm2", [("a", True)]), SAMPLING))
    assert rollout.outcome == outcome


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("1.0", "reward is '1.0'; rewards are finite numbers"),
        (float("nan"), "reward is nan"),
        ({"a": 1e308}, "reward 'a' is 1e\\+308"),
        ({1: 1.0}, "has the name 1"),
        ([1.0], "reward is"),
        (Outcome(turn_rewards={4: 1.0}), "name turn 4, which the policy did not write"),
        (Outcome(metadata={"a": float("inf")}), "cannot be written as JSON"),
        (Outcome(metadata={"a": "x" * 300_000}), "at most 262144"),
    ],
)
def test_a_bad_return_value_fails_the_rollout_with_its_cause(returned: Any, message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        asyncio.run(run_workflow(returning(returned), TASK, Scripted("smollm2", [("a", True)]), SAMPLING))


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("hi", "must be a mapping"),
        ({"content": "hi"}, "needs a role"),
        ({"role": "user", "content": 5}, "must be a text, found int"),
        ({"role": "user", "content": "\ud800"}, "surrogate"),
    ],
)
def test_a_wrong_message_is_refused(message: Any, fault: str) -> None:
    with pytest.raises(RolloutError, match=fault):
        Conversation(TASK, Scripted("smollm2", []), SAMPLING).add(message)


def test_a_workflow_that_lets_the_policy_write_nothing_is_told() -> None:
    async def silent(task: Task, conversation: Conversation) -> float:
        return 1.0

    with pytest.raises(RolloutError, match="before the policy wrote anything"):
        asyncio.run(run_workflow(silent, TASK, Scripted("smollm2", []), SAMPLING))


def returning(value: Any) -> Callable[..., Any]:
    async def workflow(task: Task, conversation: Conversation) -> Any:
        await chat(task, conversation)
        return value

    return workflow


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    folder = make_chat_model(tmp_path_factory.mktemp(request.param), request.param)
    policy = TransformersPolicy(PolicyConfig(model=str(folder), device="cpu"))
    yield folder, policy
    policy.close()


def test_logprobs_equal_those_of_a_fresh_forward_pass(real: tuple[Path, Any]) -> None:
    folder, policy = real

    async def talk(task: Task, conversation: Conversation) -> None:
        for text in ("a", "bc", "def"):
            conversation.user(text)
            await conversation.generate(max_tokens=24)

    rollout = asyncio.run(run_workflow(talk, TASK, policy, SAMPLING))
    model = load_model(folder, "float32", "cpu")
    assert sum(len(turns) for turns in rollout.turns_of_rows) == 3
    for row in rollout.rows:
        with torch.no_grad():
            logits = model(torch.tensor(row.tokens[None].astype(np.int64))).logits[0, :-1].float()
        fresh = torch.log_softmax(logits, -1)[torch.arange(row.tokens.size - 1), torch.tensor(row.tokens[1:]).long()]
        written = row.action_mask[1:] == 1
        assert np.abs(fresh.numpy()[written] - row.logprobs[1:][written]).max() < 1e-3


def test_a_stop_text_ends_a_real_generation(real: tuple[Path, Any]) -> None:
    _, policy = real
    prompt = policy.chat.encode("x")
    free = asyncio.run(policy.generate(prompt, Sampling(max_tokens=60, seed=3)))
    text = policy.chat.decode(free.tokens.tolist(), special=True)
    stop = text[20:22]
    stopped = asyncio.run(policy.generate(prompt, Sampling(max_tokens=60, seed=3, stop=(stop,))))
    found = policy.chat.decode(stopped.tokens.tolist(), special=True)
    assert stopped.finish_reason == "stop"
    assert stop in found
    assert stop not in policy.chat.decode(stopped.tokens[:-1].tolist(), special=True)
    assert free.tokens[: len(stopped.tokens)].tolist() == stopped.tokens.tolist()


def test_a_task_with_messages_is_answered_in_the_chat_template(real: tuple[Path, Any]) -> None:
    _, policy = real
    messages = [{"role": "user", "content": "Say a."}]
    task = Task(*TASK_FIELDS, json.dumps({"chat": {"messages": messages}}))
    short = Sampling(max_tokens=8, seed=2)
    rollouts = [asyncio.run(run_workflow(workflow, task, policy, short)) for workflow in (single_turn, chat)]
    rendered = policy.chat.encode(policy.chat.render(messages, prompting=True))
    for rollout in rollouts:
        (row,) = rollout.rows
        assert row.tokens[: len(rendered)].tolist() == rendered
    assert rollouts[0].rows[0].tokens.tolist() == rollouts[1].rows[0].tokens.tolist()


TASK_FIELDS = ("train-00000000", 0, "train", "test", "How are you?", None, 1, 4096, 1.0, 1.0, 5, 0, 0)


def test_a_model_without_a_template_is_told_what_to_do() -> None:
    policy = Scripted("smollm2", [])
    policy.tokenizer.chat_template = None
    conversation = Conversation(TASK, policy, SAMPLING)
    conversation.user("x")
    with pytest.raises(RequestError, match=r"has no chat template: set tokenizer\.chat_template"):
        asyncio.run(conversation.generate())
