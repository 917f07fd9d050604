"""A session that another process takes up goes on with exactly the tokens of the log, as if nothing had happened."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from producers.gateway.contract import Answer, SessionReward
from producers.gateway.session import Session
from rft.errors import DecodeError, PolicyError
from rft.policy.base import Sampling
from rft.policy.transformers.policy import TransformersPolicy
from rft.workflows.messages import Reply, ToolCall
from rft.workflows.rollout import Outcome, Rollout
from schemas.codec import decode, encode
from schemas.sessions import GivenReward, Turn, TurnPlace
from schemas.sessions import Session as SessionRecord
from tests.producers.chat_model import check_logprobs
from tests.producers.recording_policy import RecordingPolicy, check_answered, check_rows
from tests.producers.roles import task
from tests.producers.test_session import answer_of, asking, user

SAMPLING = Sampling(4000, seed=5)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


class Written:
    """A journal in memory: the bytes that a log would hold."""

    session_id = "a"

    def __init__(self) -> None:
        self.turns: list[bytes] = []
        self.rewards: tuple[GivenReward, ...] = ()
        self.fails = False

    async def append(self, turns: Sequence[Turn]) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise PolicyError("the log does not take it")
        self.turns += [encode(turn) for turn in turns]

    async def save_rewards(self, rewards: Sequence[GivenReward]) -> None:
        self.rewards = tuple(rewards)

    def read(self) -> tuple[SessionRecord, list[Turn]]:
        turns = [decode(turn, Turn) for turn in self.turns]
        places = tuple(TurnPlace(0, offset) for offset in range(len(turns)))
        return SessionRecord("a", "open", task(0), 0, SAMPLING.seed, places, self.rewards, 0, 0, "test"), turns


def parse_call(text: str) -> Reply:
    """Take every turn for a call."""
    return Reply("", "", (ToolCall("call_1", "add", {"text": text}),))


def session_of(policy: RecordingPolicy, journal: Written) -> Session:
    return Session(task(0), policy, SAMPLING, lambda: parse_call, journal)


def killed(session: Session, policy: RecordingPolicy, journal: Written) -> Session:
    """Return the session as another process takes it up. The policy draws as one that has just started."""
    vars(policy)["_calls"] = 0
    restored = session_of(policy, journal)
    restored.restore(*journal.read())
    return restored


def assert_same(left: Rollout, right: Rollout) -> None:
    assert left.turns_of_rows == right.turns_of_rows
    assert left.outcome == right.outcome
    for one, other in zip(left.rows, right.rows, strict=True):
        for field in fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_the_next_request_extends_the_row_and_a_repeated_one_gets_its_turn(
    recording: RecordingPolicy, chat_model: Path
) -> None:
    async def talk() -> Rollout:
        journal = Written()
        session = session_of(recording, journal)
        first = await session.complete(asking(user("hello")))
        second = await session.complete(asking(user("hello"), answer_of(first), user("more")))
        restored = killed(session, recording, journal)
        assert_same(session.rollout(Outcome()), restored.rollout(Outcome()))
        calls = len(recording.calls)
        again = await restored.complete(asking(user("hello"), answer_of(first), user("more")))
        assert len(recording.calls) == calls, "nothing was generated"
        assert again.turns[0].tokens.tolist() == second.turns[0].tokens.tolist()
        assert again.turns[0].message == second.turns[0].message
        assert (list(again.prompt_token_ids), again.cached_tokens) == (
            list(second.prompt_token_ids),
            second.cached_tokens,
        )
        third = await restored.complete(
            asking(user("hello"), answer_of(first), user("more"), answer_of(second), user("on"))
        )
        assert third.cached_tokens == len(second.prompt_token_ids) + len(second.turns[0].tokens)
        assert third.turns[0].index == 2
        return restored.rollout(Outcome())

    rollout = asyncio.run(talk())
    assert rollout.turns_of_rows == ((0, 1, 2),)
    check_rows(recording, rollout)
    check_logprobs(chat_model, rollout.rows)


def test_tools_calls_and_rewards_are_as_before(recording: RecordingPolicy) -> None:
    async def talk() -> None:
        journal = Written()
        session = session_of(recording, journal)
        first = await session.complete(asking(user("hello"), tools=(TOOL,)))
        call = first.turns[0].message
        assert call["tool_calls"]
        await session.reward(SessionReward(value=0.5, turn=0, revision=3))
        await session.reward(SessionReward(rewards={"style": 1.0}))
        restored = killed(session, recording, journal)
        await restored.reward(SessionReward(value=0.1, turn=0, revision=2))
        assert_same(session.rollout(Outcome()), restored.rollout(Outcome()))
        result = {"role": "tool", "tool_call_id": "call_1", "content": "5"}
        again = await restored.complete(asking(user("hello"), call, result, tools=(TOOL,)))
        assert again.cached_tokens > 0, "the call is known"

    asyncio.run(talk())


def test_a_turn_that_the_log_does_not_take_leaves_no_trace(recording: RecordingPolicy) -> None:
    async def talk() -> tuple[Rollout, list[Answer]]:
        journal = Written()
        session = session_of(recording, journal)
        first = await session.complete(asking(user("hello")))
        journal.fails = True
        for request in (asking(user("hello"), answer_of(first), user("more")), asking(user("other"), n=2)):
            with pytest.raises(PolicyError):
                await session.complete(request)
        journal.fails = False
        second = await session.complete(asking(user("hello"), answer_of(first), user("more")))
        restored = killed(session, recording, journal)
        assert_same(session.rollout(Outcome()), restored.rollout(Outcome()))
        return session.rollout(Outcome()), [first, second]

    rollout, answers = asyncio.run(talk())
    assert len(rollout.turns_of_rows) == 1
    check_answered(recording, answers, rollout)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens_before": 3},
        {"extends": 7},
        {"messages": "no JSON"},
        {"messages": "[1]"},
        {"conversation": 5},
        {"choices": 2},
    ],
    ids=str,
)
def test_turns_that_do_not_follow_from_each_other_are_refused(
    recording: RecordingPolicy, change: dict[str, object]
) -> None:
    async def talk() -> None:
        journal = Written()
        session = session_of(recording, journal)
        first = await session.complete(asking(user("hello")))
        await session.complete(asking(user("hello"), answer_of(first), user("more")))
        record, turns = journal.read()
        turns[1] = replace(turns[1], **change)
        with pytest.raises(DecodeError):
            session_of(recording, journal).restore(record, turns)

    asyncio.run(talk())


@pytest.mark.parametrize("seed", range(8))
def test_sessions_that_are_killed_again_and_again_lose_and_repeat_nothing(
    chat_policy: TransformersPolicy, chat_model: Path, seed: int
) -> None:
    """An agent goes on, goes back, asks for choices, tools and other temperatures, and hangs up; its gateway dies at
    random. What was answered is taught once, and a restored session gives the same rows as the one that was killed."""
    draw = random.Random(seed)
    policy, journal = RecordingPolicy(chat_policy, SAMPLING.seed), Written()
    answers: list[Answer] = []

    async def wander() -> Rollout:
        session = session_of(policy, journal)
        histories: list[tuple[dict[str, object], ...]] = [()]
        for _ in range(14):
            history = (*draw.choice(histories), user(f"{draw.randrange(3)}"))
            request = asking(
                *history,
                n=draw.choice([1, 1, 1, 2, 3]),
                max_tokens=draw.randrange(1, 8),
                temperature=draw.choice([None, None, 0.5]),
            )
            work = asyncio.create_task(session.complete(request))
            if draw.random() < 0.2:
                await asyncio.sleep(draw.random() * 0.01)
                work.cancel()
                await asyncio.wait([work])
            else:
                answers.append(await work)
                histories += [(*history, answers[-1].turns[choice].message) for choice in range(request.n)]
            await session.reward(SessionReward(value=draw.random(), revision=draw.randrange(3)))
            if draw.random() < 0.4:
                await asyncio.wait([work])
                restored = killed(session, policy, journal)
                assert_same(session.rollout(Outcome()), restored.rollout(Outcome()))
                assert restored.describe() == session.describe()
                session = restored
                if not work.cancelled() and draw.random() < 0.7:
                    before = len(policy.calls)
                    repeated = await session.complete(request)
                    assert [turn.index for turn in repeated.turns] == [turn.index for turn in work.result().turns]
                    assert len(policy.calls) == before
        return session.rollout(Outcome())

    rollout = asyncio.run(wander())
    check_answered(policy, answers, rollout)
    check_logprobs(chat_model, [row for row in rollout.rows if row.temperature == 1.0])
    taught = [turn for row in rollout.turns_of_rows for turn in row]
    assert sorted(taught) == sorted({turn.index for answer in answers for turn in answer.turns} | set(taught))
