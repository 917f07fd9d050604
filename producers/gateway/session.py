"""Keeps the conversations of one rollout: finds the one that a request continues, and lets the policy write in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from producers.gateway.contract import Answer, ChatRequest, SessionEndedError, SessionReward
from producers.gateway.conversations import Conversations, NumberedConversation
from producers.gateway.journal import Journal
from producers.gateway.placement import Begin, Continue, Placement, Repeat
from producers.gateway.session_rewards import SessionRewards
from producers.gateway.turn_records import answers, generation_of_turn, messages_of_turn, turn_records
from producers.gateway.turn_writing import recorded_prompt, write_turns
from rft.errors import (
    ConfigError,
    DecodeError,
    EngineDiedError,
    PromptTooLongError,
    RequestError,
    TokenBudgetError,
)
from rft.policy.base import Generation, Policy, Sampling
from rft.workflows.conversation import Conversation, Prompt
from rft.workflows.messages import ParseReply, plain_reply
from rft.workflows.rollout import Outcome, Rollout
from schemas.events import Task
from schemas.sessions import Session as SessionRecord
from schemas.sessions import Turn as TurnRecord


@dataclass(slots=True)
class _Call:
    """A request that is being answered, or was answered and may be repeated."""

    task: asyncio.Future[Answer]
    waiting: int = 0
    """How many clients wait for it: the one that asked, and those that repeat it."""


class Session:
    """The conversations of one try of one rollout. Use it in one event loop, from many coroutines at once.

    A turn that is asked for several times at once (``n``) is written in a conversation of its own each time. The first
    goes on in the row of what was before; each other choice begins a row, in which only that choice is taught. A
    request is answered by all of its turns or by none: what the policy wrote for a request that failed or was given up
    is no part of the session.
    """

    def __init__(
        self,
        task: Task,
        policy: Policy,
        sampling: Sampling,
        find_parser: Callable[[], ParseReply] = lambda: plain_reply,
        journal: Journal | None = None,
    ) -> None:
        """Begin without conversations.

        Args:
            task: The task.
            policy: Writes the turns.
            sampling: What requests leave open; its ``max_tokens`` is the budget of all conversations together. Each
                generation has a seed of its own that follows from its ``seed``.
            find_parser: Returns what finds calls in the text of a turn; called for requests with tools. May raise
                ConfigError.
            journal: Writes the turns to the log before they are answered; without one, nothing does.
        """
        # The agent sends the messages itself, those that the task begins with included.
        self._task = replace(task, metadata="{}")
        self._policy = policy
        self._sampling = sampling
        self._find_parser = find_parser
        self.journal = journal
        self._placement = Placement()
        self._conversations = Conversations(lambda: Conversation(self._task, policy, sampling))
        self._calls: dict[str, _Call] = {}
        self._canceled: set[asyncio.Future[Answer]] = set()
        """Answers that were canceled and have not ended yet."""
        self._generations = 0
        """How many were begun."""
        self._written = 0
        self._next_turn = 0
        self._turns: set[int] = set()
        self._rewards = SessionRewards()
        self.cut = False
        """Whether a request was refused because no token was left."""
        self.engine_error: EngineDiedError | None = None
        """The error that ended the engine while it wrote for this session."""
        self.ended = False

    @property
    def turns(self) -> int:
        """Turns that were answered."""
        return len(self._turns)

    @property
    def under_way(self) -> int:
        """Requests that the policy is writing for."""
        return sum(not call.task.done() for call in self._calls.values())

    async def complete(self, request: ChatRequest) -> Answer:
        """Return the next turns. They are on the log by then, if there is a journal.

        Raises SessionEndedError, RequestError, TokenBudgetError, PolicyError, BrokerError. A request that is repeated
        before somebody goes on from its answer gets the same answer. When all clients that wait for an answer are
        canceled, its work is.
        """
        if self._canceled:
            await asyncio.wait(self._canceled)  # their conversations are free in a moment
        if self.ended:
            raise SessionEndedError("the session has ended")
        place = self._placement.place(request)
        call = self._calls[place.call] if isinstance(place, Repeat) else self._ask(place, request)
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        except asyncio.CancelledError:
            if call.task.cancelled():
                raise SessionEndedError("the session ended before the turn was written") from None
            if call.waiting == 1 and not call.task.done():
                self._forget(place.call, call)
                call.task.cancel()
                self._canceled.add(call.task)
                call.task.add_done_callback(self._canceled.discard)
            raise
        finally:
            call.waiting -= 1

    async def reward(self, reward: SessionReward) -> None:
        """Take a reward. Raises SessionEndedError, or RequestError if it is none or its turn does not exist."""
        if self.ended:
            raise SessionEndedError("the session has ended: send the reward to the topic `rewards`")
        self._rewards.add(reward, self._turns)
        if self.journal is not None:
            await self.journal.save_rewards(self._rewards.newest())

    def describe(self) -> Mapping[str, Any]:
        """Return what is known of the session, as JSON."""
        return {
            "state": "ended" if self.ended else "open",
            "turns": self.turns,
            "conversations": len(self._conversations),
            "group_id": self._task.group_id,
        }

    async def end(self) -> None:
        """Take no more requests, and cancel those that are being answered."""
        self.ended = True
        running = [call.task for call in self._calls.values() if not call.task.done()] + list(self._canceled)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def rollout(self, outcome: Outcome, *, cut: bool = False) -> Rollout:
        """Return the rows of the conversations, in the order in which these began, and their rewards.

        Args:
            outcome: What the agent returned; it takes precedence over rewards that were sent to the session.
            cut: Whether the rollout ended because no token was left.
        """
        rows, numbers = self._conversations.rows()
        if cut and rows:
            rows[-1] = replace(rows[-1], finish_reason="length")
        return Rollout(tuple(rows), self._rewards.outcome(outcome), tuple(numbers))

    def restore(self, record: SessionRecord, turns: Sequence[TurnRecord]) -> None:
        """Take up a session where another process left it. Call it once, in the event loop, before anything else.

        The tokens are those of the log. A request that is made again, and that nobody has gone on from, gets the answer
        that is on the log.

        Args:
            record: The session's record.
            turns: Its turns, in the order of the record.

        Raises DecodeError if they are no turns of one session.
        """
        for answered in answers(turns):
            try:
                self._restore_answer(answered)
            except RequestError as error:
                first = answered[0]
                raise DecodeError(f"turn {first.number} of session {first.session_id} is none: {error}") from error
        self._rewards.restore(record.rewards)

    def _restore_answer(self, records: Sequence[TurnRecord]) -> None:
        first = records[0]
        messages, tools = messages_of_turn(first)
        number = None if first.begins else first.conversation
        if number is not None:
            tools = self._conversations.tools(number)
        history = self._placement.history(number, tools, messages)
        numbers = [record.conversation for record in records]
        parse = self._parser(tools, first.tool_choice)
        into = self._conversations.go_on(number, messages, tools, parse, len(records), numbers)
        prompts = [recorded_prompt(one, record) for one, record in zip(into, records, strict=True)]
        self._note_asked(first.request, history, into)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._calls[first.request] = _Call(answer)
        generations = [generation_of_turn(record) for record in records]
        answer.set_result(self._append(into, prompts, generations, [record.number for record in records]))
        self._next_turn = max(self._next_turn, *(record.number + 1 for record in records))
        self._generations = max(self._generations, *(record.generation + 1 for record in records))

    def _ask(self, place: Continue | Begin, request: ChatRequest) -> _Call:
        number = place.conversation if isinstance(place, Continue) else None
        new = request.messages[place.new :] if isinstance(place, Continue) else request.messages
        parse = self._parser(request.tools, request.tool_choice)
        into = self._conversations.go_on(number, new, request.tools, parse, request.n)
        self._note_asked(place.call, place.history, into)
        call = _Call(asyncio.create_task(self._answer(request, place.call, into)))
        self._calls[place.call] = call

        def answered(task: asyncio.Future[Answer]) -> None:
            if task.cancelled() or task.exception():
                self._forget(place.call, call)

        call.task.add_done_callback(answered)
        return call

    def _note_asked(self, call: str, history: str, into: Sequence[NumberedConversation]) -> None:
        for arrived in self._placement.asked(call, history, [one.number for one in into]):
            self._calls.pop(arrived, None)

    def _forget(self, name: str, call: _Call) -> None:
        """Let a request that was not answered be asked again."""
        if self._calls.get(name) is call:
            del self._calls[name]
            self._placement.forget(name)

    def _parser(self, tools: Sequence[Any], tool_choice: str) -> ParseReply:
        """Return what takes the turns of a request apart: only one with tools may have calls."""
        if not tools or tool_choice == "none":
            return plain_reply
        try:
            return self._find_parser()
        except ConfigError as error:
            raise RequestError(str(error)) from error

    async def _answer(self, request: ChatRequest, digest: str, into: Sequence[NumberedConversation]) -> Answer:
        """Let the policy write all turns of a request, write them to the log and append them; or leave no trace."""
        try:
            most = min(max(self._tokens_left() // request.n, 1), request.max_tokens or self._sampling.max_tokens)
            calls = range(self._generations, self._generations + request.n)
            self._generations += request.n
            written = await write_turns(self._policy, into, request, most, self._sampling.seed, calls)
            numbers = range(self._next_turn, self._next_turn + request.n)
            self._next_turn += request.n
            if self.journal is not None:
                await self.journal.append(
                    turn_records(
                        written,
                        numbers,
                        request,
                        digest,
                        into[0].conversation,
                        session_id=self.journal.session_id,
                        group_id=self._task.group_id,
                        now_ms=int(time.time() * 1000),
                    )
                )
        except BaseException as error:
            self._not_answered(into, error)
            raise
        prompts, generations = [one.prompt for one in written], [one.generation for one in written]
        return self._append(into, prompts, generations, numbers)

    def _append(
        self,
        into: Sequence[NumberedConversation],
        prompts: Sequence[Prompt],
        generations: Sequence[Generation],
        numbers: Sequence[int],
    ) -> Answer:
        """Append a turn to each conversation, and return the answer that they are."""
        read, before = prompts[0].tokens, into[0].conversation.tokens
        turns = []
        for one, prompt, generation, number in zip(into, prompts, generations, numbers, strict=True):
            turn = replace(one.conversation.append(prompt, generation), index=number)
            one.turns.append(number)
            self._turns.add(number)
            self._written += len(turn.tokens)
            self._placement.answered(one.number, turn.message)
            turns.append(turn)
        return Answer(tuple(turns), read, len(before) if read[: len(before)] == before else 0)

    def _not_answered(self, into: Sequence[NumberedConversation], error: BaseException) -> None:
        self.cut |= isinstance(error, TokenBudgetError | PromptTooLongError)
        if isinstance(error, EngineDiedError):
            self.engine_error = error
        for one in into:
            self._placement.failed(one.number, kept=one.taught)
            if not one.taught:
                self._conversations.drop(one)

    def _tokens_left(self) -> int:
        left = self._sampling.max_tokens - self._written
        if left < 1:
            raise TokenBudgetError(
                f"the policy has written all {self._sampling.max_tokens} tokens of this rollout (rollout.max_tokens)"
            )
        return left
