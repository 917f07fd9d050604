"""Keeps the conversations of one rollout: finds the one that a request continues, and lets the policy write in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from producers.gateway.contract import Answer, ChatRequest, SessionEndedError, SessionReward
from producers.gateway.placement import Begin, Continue, Placement, Repeat
from producers.gateway.session_rewards import SessionRewards
from rft.errors import (
    ConfigError,
    EngineDiedError,
    PromptTooLongError,
    RequestError,
    RolloutError,
    TokenBudgetError,
)
from rft.policy.base import Policy, Sampling
from rft.workflows.conversation import Conversation, Turn
from rft.workflows.messages import ParseReply, plain_reply
from rft.workflows.rollout import Outcome, Rollout
from rft.workflows.trajectory import Trajectory
from schemas.events import Task

MAX_CONVERSATIONS = 1024


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session, and how an agent reaches it."""

    name: str
    api_key: str
    base_url: str
    """For clients of OpenAI's protocols."""
    anthropic_base_url: str
    """For clients of Anthropic's."""
    session: Session


@dataclass(slots=True)
class _Call:
    """A request that is being answered, or was answered and may be repeated."""

    task: asyncio.Task[Answer]
    waiting: int = 0
    """How many clients wait for it: the one that asked, and those that repeat it."""


@dataclass(slots=True)
class _Recorded:
    conversation: Conversation
    numbers: list[int] = field(default_factory=list)
    """The number in the session of each turn in the conversation."""


class Session:
    """The conversations of one try of one rollout. Use it in one event loop, from many coroutines at once.

    A turn that is asked for several times at once (``n``) is written in a conversation of its own each time. The first
    goes on in the row of what was before; each other choice begins a row, in which only that choice is taught.
    """

    def __init__(
        self,
        task: Task,
        policy: Policy,
        sampling: Sampling,
        find_parser: Callable[[], ParseReply] = lambda: plain_reply,
    ) -> None:
        """Begin without conversations.

        Args:
            task: The task.
            policy: Writes the turns. It gives each generation random numbers of its own (SeededPolicy).
            sampling: What requests leave open; its ``max_tokens`` is the budget of all conversations together.
            find_parser: Returns what finds calls in the text of a turn; called for requests with tools. May raise
                ConfigError.
        """
        # The agent sends the messages itself, those that the task begins with included.
        self._task = replace(task, metadata="{}")
        self._policy = policy
        self._sampling = sampling
        self._find_parser = find_parser
        self._placement = Placement()
        self._recorded: dict[int, _Recorded] = {}
        self._begun = 0
        self._calls: dict[str, _Call] = {}
        self._canceled: set[asyncio.Task[Answer]] = set()
        """Answers that were canceled and have not ended yet."""
        self._written = 0
        self._rewards = SessionRewards()
        self.turns = 0
        """Turns that the policy has written."""
        self.cut = False
        """Whether a request was refused because no token was left."""
        self.engine_error: EngineDiedError | None = None
        """The error that ended the engine while it wrote for this session."""
        self.ended = False

    @property
    def under_way(self) -> int:
        """Requests that the policy is writing for."""
        return sum(not call.task.done() for call in self._calls.values())

    async def complete(self, request: ChatRequest) -> Answer:
        """Return the next turns.

        Raises SessionEndedError, RequestError, TokenBudgetError, PolicyError. A request that is repeated before
        somebody goes on from its answer gets the same answer. When all clients that wait for an answer are canceled,
        its work is.
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

    def reward(self, reward: SessionReward) -> None:
        """Take a reward. Raises SessionEndedError, or RequestError if it is none or its turn does not exist."""
        if self.ended:
            raise SessionEndedError("the session has ended: send the reward to the topic `rewards`")
        self._rewards.add(reward, self.turns)

    def describe(self) -> Mapping[str, Any]:
        """Return what is known of the session, as JSON."""
        return {
            "state": "ended" if self.ended else "open",
            "turns": self.turns,
            "conversations": len(self._recorded),
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
        rows: list[Trajectory] = []
        numbers: list[tuple[int, ...]] = []
        for recorded in self._recorded.values():
            rows += recorded.conversation.rows()
            for turns in recorded.conversation.turns_of_rows():
                numbers.append(tuple(recorded.numbers[turn] for turn in turns))
        if cut and rows:
            rows[-1] = replace(rows[-1], finish_reason="length")
        return Rollout(tuple(rows), self._rewards.outcome(outcome), tuple(numbers))

    def _ask(self, place: Continue | Begin, request: ChatRequest) -> _Call:
        numbers = self._add_messages(place, request)
        for arrived in self._placement.asked(place.call, request, numbers):
            self._calls.pop(arrived, None)
        call = _Call(asyncio.create_task(self._answer(request, numbers)))
        self._calls[place.call] = call

        def answered(task: asyncio.Task[Answer]) -> None:
            if task.cancelled() or task.exception():
                self._forget(place.call, call)

        call.task.add_done_callback(answered)
        return call

    def _forget(self, name: str, call: _Call) -> None:
        """Let a request that was not answered be asked again."""
        if self._calls.get(name) is call:
            del self._calls[name]
            self._placement.forget(name)

    def _add_messages(self, place: Continue | Begin, request: ChatRequest) -> list[int]:
        """Add the new messages. Return the numbers of the conversations in which the turns are to be written."""
        begins = request.n - isinstance(place, Continue)
        if begins and len(self._recorded) + begins > MAX_CONVERSATIONS:
            raise RequestError(
                f"the session has {len(self._recorded)} conversations, at most {MAX_CONVERSATIONS} may be"
            )
        parse = self._parser(request)
        if isinstance(place, Continue):
            first = self._recorded[place.conversation]
            numbers, new = [place.conversation], request.messages[place.new :]
        else:
            first = _Recorded(Conversation(self._task, self._policy, self._sampling))
            first.conversation.tools = list(request.tools)
            numbers, new = [], request.messages
        first.conversation.parse = parse
        try:
            first.conversation.add(*new)
        except RolloutError as error:
            raise RequestError(str(error)) from error
        begin = [] if numbers else [first]
        begin += [_Recorded(first.conversation.fork(), list(first.numbers)) for _ in range(request.n - 1)]
        for recorded in begin:
            numbers.append(self._begun)
            self._recorded[self._begun] = recorded
            self._begun += 1
        return numbers

    def _parser(self, request: ChatRequest) -> ParseReply:
        """Return what takes the turns of a request apart: only one with tools may have calls."""
        if not request.tools or request.tool_choice == "none":
            return plain_reply
        try:
            return self._find_parser()
        except ConfigError as error:
            raise RequestError(str(error)) from error

    async def _answer(self, request: ChatRequest, numbers: list[int]) -> Answer:
        read = [self._recorded[number].conversation.tokens for number in numbers[:1]]
        done = await asyncio.gather(*(self._write(number, request) for number in numbers), return_exceptions=True)
        turns: list[Any] = []
        for turn in done:
            if isinstance(turn, BaseException):
                raise turn
            turns.append(turn)
        tokens = self._recorded[numbers[0]].conversation.tokens[: turns[0].prompt_tokens]
        cached = len(read[0]) if tokens[: len(read[0])] == read[0] else 0
        return Answer(tuple(turns), tokens, cached)

    async def _write(self, number: int, request: ChatRequest) -> Turn:
        """Let the policy write one turn in a conversation, and number it."""
        recorded = self._recorded[number]
        conversation = recorded.conversation
        taught = bool(conversation.turns_of_rows())
        try:
            turn = await conversation.generate(
                max_tokens=min(
                    max(self._tokens_left() // request.n, 1), request.max_tokens or self._sampling.max_tokens
                ),
                temperature=request.temperature,
                top_p=request.top_p,
                stop=request.stop,
            )
        except BaseException as error:
            self.cut |= isinstance(error, TokenBudgetError | PromptTooLongError)
            if isinstance(error, EngineDiedError):
                self.engine_error = error
            self._placement.failed(number, kept=taught)
            if not taught:
                del self._recorded[number]
            raise
        self._written += len(turn.tokens)
        turn = replace(turn, index=self.turns)
        self.turns += 1
        recorded.numbers.append(turn.index)
        self._placement.answered(number, turn.message)
        return turn

    def _tokens_left(self) -> int:
        left = self._sampling.max_tokens - self._written
        if left < 1:
            raise TokenBudgetError(
                f"the policy has written all {self._sampling.max_tokens} tokens of this rollout (rollout.max_tokens)"
            )
        return left
