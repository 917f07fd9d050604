"""Holds the conversations of one session, by number, and the rows that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rft.errors import RequestError, RolloutError
from rft.workflows.conversation import Conversation
from rft.workflows.messages import Message, ParseReply
from rft.workflows.trajectory import Trajectory
from schemas.sessions import BEGINS

MAX_CONVERSATIONS = 1024


@dataclass(slots=True)
class NumberedConversation:
    """One conversation of a session."""

    number: int
    conversation: Conversation
    turns: list[int] = field(default_factory=list)
    """The number in the session of each turn in the conversation."""

    @property
    def last(self) -> int:
        """Number of its last turn; BEGINS if it has none."""
        return self.turns[-1] if self.turns else BEGINS

    @property
    def taught(self) -> bool:
        """Whether a turn was written in it, and not only in the one that it was forked from."""
        return bool(self.conversation.turns_of_rows())


class Conversations:
    """The conversations of one session."""

    def __init__(self, make: Callable[[], Conversation]) -> None:
        """``make`` returns a conversation without messages."""
        self._make = make
        self._found: dict[int, NumberedConversation] = {}
        self._begun = 0

    def __len__(self) -> int:
        return len(self._found)

    def go_on(
        self,
        number: int | None,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        parse: ParseReply,
        choices: int,
        numbers: Sequence[int] = (),
    ) -> list[NumberedConversation]:
        """Add messages, and return the conversations in which turns are to be written, one for each choice.

        The first goes on with what was before; the others are forked from it.

        Args:
            number: The conversation that goes on; None to begin one.
            messages: What is new.
            tools: The functions of a conversation that begins.
            parse: Takes the turns apart.
            choices: How many turns are to be written.
            numbers: Numbers of the conversations of a session that is read back; by default new ones are counted.

        Raises RequestError if there are too many conversations, a message is none, or a number is wrong.
        """
        new: list[int | None] = [*numbers] if numbers else [None] * choices
        unknown = number is not None and number not in self._found
        if unknown or any(one in self._found for one in new[number is not None :]):
            raise RequestError(f"the session cannot go on in conversation {number} and begin {[*numbers]}")
        begins = choices - (number is not None)
        if begins and len(self._found) + begins > MAX_CONVERSATIONS:
            raise RequestError(f"the session has {len(self._found)} conversations, at most {MAX_CONVERSATIONS} may be")
        if number is None:
            first = self._make()
            first.tools = list(tools)
        else:
            first = self._found[number].conversation
        first.parse = parse
        try:
            first.add(*messages)
        except RolloutError as error:
            raise RequestError(str(error)) from error
        chosen = [self._found[number] if number is not None else self._add(new[0], first, [])]
        chosen += [self._add(one, first.fork(), list(chosen[0].turns)) for one in new[1:]]
        return chosen

    def tools(self, number: int) -> list[dict[str, Any]]:
        """Return the functions of a conversation. Raises RequestError if there is no such conversation."""
        if number not in self._found:
            raise RequestError(f"the session has no conversation {number}")
        return self._found[number].conversation.tools

    def drop(self, conversation: NumberedConversation) -> None:
        """Forget a conversation in which nothing was written."""
        del self._found[conversation.number]

    def rows(self) -> tuple[list[Trajectory], list[tuple[int, ...]]]:
        """Return the rows of all conversations, in the order in which these began, and the numbers of their turns."""
        rows: list[Trajectory] = []
        numbers: list[tuple[int, ...]] = []
        for _, one in sorted(self._found.items()):
            rows += one.conversation.rows()
            numbers += [tuple(one.turns[turn] for turn in turns) for turns in one.conversation.turns_of_rows()]
        return rows, numbers

    def _add(self, number: int | None, conversation: Conversation, turns: list[int]) -> NumberedConversation:
        number = self._begun if number is None else number
        made = self._found[number] = NumberedConversation(number, conversation, turns)
        self._begun = max(self._begun, number + 1)
        return made
