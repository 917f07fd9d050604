"""Holds a conversation between a workflow and the policy, and the exact tokens of it.

A workflow adds messages and lets the policy write turns:

    async def guess(task, conversation):
        conversation.user(task.prompt)
        turn = await conversation.generate()
        conversation.user("Higher." if int(turn.content) < 7 else "Lower.")
        turn = await conversation.generate()
        return float(turn.content.strip() == "7")
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from rft.errors import PromptTooLongError, RequestError, RolloutError, TokenBudgetError
from rft.policy.base import Generation, Policy, Sampling
from rft.workflows.messages import Message, ParseReply, ToolCall, chat_of, check_message, plain_reply
from rft.workflows.token_history import STAND_IN, TokenRow, text_after_turn
from rft.workflows.trajectory import Trajectory
from rft.workflows.turn import Turn as Turn
from rft.workflows.turn import make_turn, without_end
from schemas.events import Task

MAX_MESSAGES = 10_000


@dataclass(frozen=True, slots=True)
class _Entry:
    message: Message
    turn: Turn | None = None

    def for_template(self) -> Message:
        """Return the message to render: a turn as the policy wrote it, not as it was taken apart."""
        return self.message if self.turn is None else {"role": "assistant", "content": self.turn.raw}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy reads for one turn, and how it is sampled."""

    row: TokenRow | None
    """The row that goes on; None if another begins."""
    rendered: str
    """What the template rendered."""
    new: list[int]
    """The tokens that it reads after those of the row."""
    sampling: Sampling

    @property
    def tokens_before(self) -> int:
        """Number of tokens of the row so far."""
        return len(self.row.tokens) if self.row else 0

    @property
    def tokens(self) -> list[int]:
        """All tokens that it reads."""
        return [*(self.row.tokens if self.row else ()), *self.new]


class Conversation:
    """The messages and turns of one conversation. Use it from one coroutine at a time."""

    def __init__(self, task: Task, policy: Policy, sampling: Sampling, parse: ParseReply = plain_reply) -> None:
        """Begin with the messages of the task's metadata (``chat``). Raises RolloutError if one of them is wrong.

        Args:
            task: The task.
            policy: Writes the turns.
            sampling: How turns are sampled unless ``generate`` says otherwise; its ``max_tokens`` is the budget of all
                turns together.
            parse: Takes the text of a turn apart.
        """
        self.task = task
        self.sampling = sampling
        self.parse = parse
        self._policy = policy
        self._entries: list[_Entry] = []
        self._turns: list[Turn] = []
        self._rows: list[TokenRow] = []
        self._written = 0
        begin = chat_of(task)
        self.tools: list[dict[str, Any]] = list(begin.get("tools") or [])
        """Schemas of the functions that the model may call, in OpenAI's format."""
        self.add(*begin.get("messages") or [])

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages so far, turns included."""
        return tuple(entry.message for entry in self._entries)

    @property
    def unanswered(self) -> tuple[Message, ...]:
        """The messages after the last turn."""
        last = max((number for number, entry in enumerate(self._entries) if entry.turn), default=-1)
        return tuple(entry.message for entry in self._entries[last + 1 :])

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What the policy has written, in order."""
        return tuple(self._turns)

    @property
    def template(self) -> str:
        """The model's chat template, in Jinja; empty if it has none."""
        return self._policy.chat.source

    @property
    def tokens_left(self) -> int:
        """Tokens that the policy may still write; its context may end before."""
        return self.sampling.max_tokens - self._written

    @property
    def forks(self) -> int:
        """How often another row began."""
        return max(len(self._rows) - 1, 0)

    @property
    def tokens(self) -> list[int]:
        """The tokens that the policy has read and written, in the row that goes on now."""
        return list(self._rows[-1].tokens) if self._rows else []

    def fork(self) -> Conversation:
        """Return a conversation that goes on from here with the same tokens.

        Its rows teach only the turns that are written in it: those so far belong to this conversation.
        """
        other = copy(self)
        rows = [row.context() for row in self._rows[-1:]]
        vars(other).update(_entries=list(self._entries), _turns=list(self._turns), _rows=rows)
        return other

    def add(self, *messages: Message) -> None:
        """Append messages. Raises RolloutError for one that is none."""
        if len(self._entries) + len(messages) > MAX_MESSAGES:
            raise RolloutError(f"a conversation may have {MAX_MESSAGES} messages")
        self._entries += [_Entry(check_message(message)) for message in messages]

    def system(self, text: str) -> None:
        """Append instructions."""
        self.add({"role": "system", "content": text})

    def user(self, text: str) -> None:
        """Append what the user says."""
        self.add({"role": "user", "content": text})

    def tool(self, call: ToolCall, text: str) -> None:
        """Append the answer of a function that the model called."""
        self.add({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": text})

    async def generate(
        self,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
    ) -> Turn:
        """Let the policy write the next turn, append it and return it.

        Args:
            max_tokens: The most tokens of this turn; by default all that are left.
            temperature: Instead of the task's. A turn that is sampled otherwise than the one before begins another row.
            top_p: Instead of the task's, likewise.
            stop: Texts at which the turn ends. They are not part of its text, but of its tokens.

        Raises what ``prompt`` and the policy raise.
        """
        prompt = self.prompt(max_tokens=max_tokens, temperature=temperature, top_p=top_p, stop=stop)
        return self.append(prompt, await self._policy.generate(prompt.tokens, prompt.sampling))

    def prompt(
        self,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Prompt:
        """Return what the policy is to read for the next turn, see ``generate``. Changes nothing.

        ``seed`` is used instead of the one that the conversation was given.

        Raises TokenBudgetError if no token may be written any more, RequestError if the template fails or the first
        turn's prompt does not fit the context.
        """
        rendered = self._render([entry.for_template() for entry in self._entries])
        row, new = self._extend(rendered)
        size = len(new) + (len(row.tokens) if row else 0)
        room = min(self.tokens_left, self._policy.context - size)
        if room < 1:
            self._raise_full(size)
        sampling = replace(
            self.sampling,
            max_tokens=room if max_tokens is None else min(max_tokens, room),
            temperature=self.sampling.temperature if temperature is None else temperature,
            top_p=self.sampling.top_p if top_p is None else top_p,
            stop=tuple(stop),
            seed=self.sampling.seed if seed is None else seed,
        )
        return Prompt(row, rendered, new, sampling)

    def recorded_prompt(self, new: Sequence[int], sampling: Sampling, *, extends: bool) -> Prompt:
        """Return what the policy has read for the next turn, as it was recorded: its exact tokens are kept.

        Args:
            new: The tokens that it read, without those of the row that it extends.
            sampling: How the turn was sampled.
            extends: Whether the row so far went on.

        Raises RequestError if the template fails.
        """
        rendered = self._render([entry.for_template() for entry in self._entries])
        return Prompt(self._rows[-1] if extends else None, rendered, list(new), sampling)

    def append(self, prompt: Prompt, generation: Generation) -> Turn:
        """Append what the policy wrote after it had read ``prompt``. No turn may have been appended since."""
        row, sampled = prompt.row, (prompt.sampling.temperature, prompt.sampling.top_p)
        if row is not None and row.turns and row.sampled != sampled:
            row = row.context()
            self._rows.append(row)
        if row is None:
            row = TokenRow(prompt.rendered)
            self._rows.append(row)
        row.sampled = sampled
        if not row.turns:
            row.prompt = prompt.rendered
        row.rendered = prompt.rendered
        row.read(prompt.new)
        decode = self._policy.chat.decode
        turn = make_turn(len(self._turns), generation, prompt.sampling.stop, len(row.tokens), decode, self.parse)
        row.wrote(turn.index, turn.text, generation)
        self._written += len(turn.tokens)
        self._turns.append(turn)
        self._entries.append(_Entry(turn.message, turn))
        return turn

    def rows(self) -> tuple[Trajectory, ...]:
        """Return what the policy read and wrote, as rows to learn from; none if it wrote nothing."""
        return tuple(row.trajectory() for row in self._rows if row.turns)

    def turns_of_rows(self) -> tuple[tuple[int, ...], ...]:
        """Return, for each row, the indexes of the turns that it teaches."""
        return tuple(tuple(row.turns) for row in self._rows if row.turns)

    def _extend(self, rendered: str) -> tuple[TokenRow | None, list[int]]:
        """Return the row that goes on, or None for a new one, and the tokens that the policy reads next in it."""
        encode = self._policy.chat.encode
        if self._rows and (new := self._text_after(self._rows[-1], rendered)) is not None:
            return self._rows[-1], encode(new)
        return None, encode(rendered)

    def _text_after(self, row: TokenRow, rendered: str) -> str | None:
        last = max(index for index, entry in enumerate(self._entries) if entry.turn is not None)
        turn = self._entries[last].turn
        assert turn is not None
        everything = self._policy.chat.decode(turn.tokens.tolist(), special=True)
        body, end = without_end(turn, everything)

        def stand_in() -> str | None:
            messages = [entry.for_template() for entry in self._entries]
            messages[last] = {**messages[last], "content": STAND_IN}
            try:
                return self._render(messages)
            except RequestError:
                return None

        return text_after_turn(row.rendered, body, end, rendered, stand_in)

    def _render(self, messages: list[Message]) -> str:
        return self._policy.chat.render(messages, self.tools, prompting=True)

    def _raise_full(self, prompt_tokens: int) -> None:
        if self.tokens_left < 1:
            raise TokenBudgetError(
                f"the policy has written all {self.sampling.max_tokens} tokens of this rollout (rollout.max_tokens)"
            )
        context = self._policy.context
        problem = f"the conversation has {prompt_tokens} tokens, which fill the model's context of {context}"
        if not self._turns:
            raise PromptTooLongError(f"{problem}: shorten the task's messages")
        raise TokenBudgetError(problem)
