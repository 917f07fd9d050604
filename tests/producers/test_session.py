"""Sessions of the gateway: every turn is taught once, in the row of the tokens that the policy read for it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from producers.gateway.contract import Answer, ChatRequest, SessionEndedError, SessionReward
from producers.gateway.session import Session
from rft.errors import RequestError, TokenBudgetError
from rft.policy.base import Sampling
from rft.policy.transformers.policy import TransformersPolicy
from rft.workflows.rollout import Outcome, Rollout
from tests.producers.chat_model import check_logprobs
from tests.producers.recording_policy import RecordingPolicy, check_answered, check_rows
from tests.producers.roles import task
from tests.rft.policy.tiny_policy import until


def session_of(policy: RecordingPolicy, max_tokens: int = 4000) -> Session:
    return Session(task(0), policy, Sampling(max_tokens))


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def asking(*messages: dict[str, object], **changes: object) -> ChatRequest:
    return ChatRequest(tuple(messages), **{"max_tokens": 6, **changes})


def answer_of(answer: Answer, choice: int = 0) -> dict[str, object]:
    return {"role": "assistant", "content": answer.turns[choice].reply.content}


def test_a_conversation_is_extended_and_its_tokens_are_kept(recording: RecordingPolicy, chat_model: Path) -> None:
    async def talk() -> Rollout:
        session = session_of(recording)
        first = await session.complete(asking(user("hello")))
        again = await session.complete(asking(user("hello"), answer_of(first), user("more")))
        assert again.cached_tokens == len(first.prompt_token_ids) + len(first.turns[0].tokens)
        assert [turn.index for turn in (*first.turns, *again.turns)] == [0, 1]
        return session.rollout(Outcome())

    rollout = asyncio.run(talk())
    assert len(rollout.rows) == 1
    assert rollout.turns_of_rows == ((0, 1),)
    check_rows(recording, rollout)
    check_logprobs(chat_model, rollout.rows)


def test_what_clients_change_in_an_answer_does_not_count(recording: RecordingPolicy) -> None:
    async def talk() -> Rollout:
        session = session_of(recording)
        first = await session.complete(asking(user("hello")))
        answer = {"content": f" {answer_of(first)['content']}\n", "role": "assistant", "name": "policy"}
        await session.complete(asking(user("hello"), answer | {"reasoning_content": "so"}, user("more")))
        return session.rollout(Outcome())

    assert len(asyncio.run(talk()).rows) == 1


def test_a_rewritten_history_and_other_tools_begin_rows(recording: RecordingPolicy, chat_model: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}

    async def talk() -> Rollout:
        session = session_of(recording)
        first = await session.complete(asking(user("hello")))
        await session.complete(asking(user("hello"), {"role": "assistant", "content": "summary"}, user("more")))
        await session.complete(asking(user("hello"), answer_of(first), user("more"), tools=(tool,)))
        await session.complete(asking(user("sub-agent")))
        await session.complete(asking(user("hello"), answer_of(first), user("more")))
        return session.rollout(Outcome())

    rollout = asyncio.run(talk())
    assert rollout.turns_of_rows == ((0, 4), (1,), (2,), (3,))
    check_rows(recording, rollout)
    check_logprobs(chat_model, rollout.rows)


def test_a_repeated_request_gets_the_same_answer_while_nobody_has_gone_on_from_it(recording: RecordingPolicy) -> None:
    async def talk() -> None:
        session = session_of(recording)
        together = await asyncio.gather(*(session.complete(asking(user("hello"))) for _ in range(3)))
        later = await session.complete(asking(user("hello")))
        assert {id(answer) for answer in (*together, later)} == {id(later)}
        assert len(recording.calls) == 1
        await session.complete(asking(user("hello"), answer_of(later), user("more")))
        anew = await session.complete(asking(user("hello")))
        assert anew is not later
        assert (len(recording.calls), session.turns) == (3, 3)

    asyncio.run(talk())


def test_choices_share_the_prompt_and_any_of_them_goes_on_in_its_row(
    recording: RecordingPolicy, chat_model: Path
) -> None:
    async def talk() -> Rollout:
        session = session_of(recording)
        first = await session.complete(asking(user("hello")))
        history = (user("hello"), answer_of(first), user("more"))
        second = await session.complete(asking(*history, n=3))
        assert len({tuple(prompt) for prompt, _ in recording.calls[1:]}) == 1
        contents = [answer_of(second, choice)["content"] for choice in range(3)]
        assert len(set(contents)) == 3
        await session.complete(asking(*history, answer_of(second, 2), user("on")))
        return session.rollout(Outcome())

    rollout = asyncio.run(talk())
    assert sorted(map(len, rollout.turns_of_rows)) == [1, 2, 2]
    check_rows(recording, rollout)
    check_logprobs(chat_model, rollout.rows)


def test_a_client_that_hangs_up_ends_its_work_and_may_ask_again(recording: RecordingPolicy) -> None:
    async def talk() -> Rollout:
        session = session_of(recording)
        first = await session.complete(asking(user("hello")))
        request = asking(user("hello"), answer_of(first), user("more"), max_tokens=3000)
        hung_up = asyncio.create_task(session.complete(request))
        await until(lambda: recording.stats["running"])
        hung_up.cancel()
        await asyncio.wait([hung_up])
        assert session.under_way == 0
        await session.complete(asking(user("hello"), answer_of(first), user("more")))
        return session.rollout(Outcome())

    rollout = asyncio.run(talk())
    assert rollout.turns_of_rows == ((0, 1),)
    check_rows(recording, rollout)


def test_the_budget_is_that_of_all_conversations_together(recording: RecordingPolicy) -> None:
    async def talk() -> None:
        session = session_of(recording, max_tokens=8)
        for number in range(8):
            try:
                await session.complete(asking(user(f"hello {number}")))
            except TokenBudgetError:
                break
        assert session.cut
        assert sum(len(done.tokens) for _, done in recording.calls) == 8

    asyncio.run(talk())


def test_choices_share_the_budget_that_is_left(recording: RecordingPolicy) -> None:
    async def talk() -> None:
        session = session_of(recording, max_tokens=8)
        await session.complete(asking(user("hello"), n=4))
        assert sum(len(done.tokens) for _, done in recording.calls) <= 8
        assert len(recording.calls) == 4

    asyncio.run(talk())


def test_a_turn_of_another_temperature_begins_a_row_that_states_it(recording: RecordingPolicy) -> None:
    async def talk() -> Session:
        session = session_of(recording)
        history = [user("hello")]
        for temperature in (None, 0.5, 0.5):
            answer = await session.complete(asking(*history, temperature=temperature, max_tokens=4))
            history += [answer.turns[0].message, user("go on")]
        return session

    rollout = asyncio.run(talk()).rollout(Outcome())
    assert [row.temperature for row in rollout.rows] == [1.0, 0.5]
    assert rollout.turns_of_rows == ((0,), (1, 2))
    (prompt, done), *_ = recording.calls
    first, second = rollout.rows
    read = [*prompt, *done.tokens.tolist()]
    assert second.tokens[: len(read)].tolist() == read == first.tokens.tolist()
    assert not second.action_mask[: len(read)].any()


def test_a_session_that_ends_answers_nothing_more(recording: RecordingPolicy) -> None:
    async def talk() -> None:
        session = session_of(recording)
        running = asyncio.create_task(session.complete(asking(user("hello"), max_tokens=3000)))
        await asyncio.sleep(0.02)
        await session.end()
        with pytest.raises(SessionEndedError):
            await running
        with pytest.raises(SessionEndedError):
            await session.complete(asking(user("hello")))
        with pytest.raises(SessionEndedError):
            await session.reward(SessionReward(value=1.0))

    asyncio.run(talk())


def test_rewards_of_the_session_join_those_that_the_agent_returns(recording: RecordingPolicy) -> None:
    async def talk() -> Rollout:
        session = session_of(recording)
        await session.complete(asking(user("hello")))
        await session.reward(SessionReward(value=0.5, revision=2))
        await session.reward(SessionReward(value=0.1, revision=1))
        await session.reward(SessionReward(value=0.2, turn=0))
        await session.reward(SessionReward(rewards={"style": 0.3, "size": 1.0}))
        for wrong in (SessionReward(value=1.0, turn=1), SessionReward(value=float("nan"))):
            with pytest.raises(RequestError):
                await session.reward(wrong)
        return session.rollout(Outcome(rewards={"size": 2.0}))

    outcome = asyncio.run(talk()).outcome
    assert (outcome.reward, outcome.turn_rewards) == (0.5, {0: 0.2})
    assert outcome.rewards == {"style": 0.3, "size": 2.0}


@pytest.mark.parametrize("seed", range(6))
def test_concurrent_sessions_with_forks_never_mix(chat_policy: TransformersPolicy, chat_model: Path, seed: int) -> None:
    """Several agents at once, each of which goes on, goes back, repeats, asks for choices and hangs up at random."""
    policies = [RecordingPolicy(chat_policy, number) for number in range(4)]
    answers: dict[str, list[Answer]] = {marker: [] for marker in "abcd"}

    async def wander(session: Session, marker: str, draw: random.Random) -> None:
        histories: list[tuple[dict[str, object], ...]] = [()]

        async def step() -> None:
            before = draw.choice(histories)
            history = (*before, user(f"{marker}{draw.randrange(3)}"))
            request = asking(*history, n=draw.choice([1, 1, 1, 2, 3]), max_tokens=draw.randrange(1, 8))
            work = asyncio.create_task(session.complete(request))
            if draw.random() < 0.2:
                await asyncio.sleep(draw.random() * 0.01)
                work.cancel()
                await asyncio.wait([work])
                return
            answer = await work
            answers[marker].append(answer)
            if draw.random() < 0.2:
                repeated = await session.complete(request)
                assert len(repeated.turns) == request.n
            histories.extend((*history, answer_of(answer, choice)) for choice in range(request.n))

        for _ in range(6):
            await asyncio.gather(*(step() for _ in range(draw.randrange(1, 4))))

    async def run() -> list[Rollout]:
        sessions = [session_of(policy) for policy in policies]
        await asyncio.gather(*(wander(s, "abcd"[i], random.Random(f"{seed}/{i}")) for i, s in enumerate(sessions)))
        return [session.rollout(Outcome()) for session in sessions]

    for policy, answered, rollout in zip(policies, answers.values(), asyncio.run(run()), strict=True):
        check_answered(policy, answered, rollout)
        taught = [turn for row in rollout.turns_of_rows for turn in row]
        assert sorted(taught) == list(range(len(taught)))
        check_logprobs(chat_model, rollout.rows)
