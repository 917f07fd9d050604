"""Defines what lies between the protocols of the gateway and its sessions.

The protocols (OpenAI Chat Completions and Responses, Anthropic Messages) translate a body into a :class:`ChatRequest`
and an :class:`Answer` into a body. The sessions know nothing of HTTP. Besides the errors here they raise RequestError
(400), TokenBudgetError (400, ``context_length_exceeded``) and PolicyError (503) of :mod:`rft.errors`; any other
exception is answered with 500 and a text that shows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rft.errors import RftError
from rft.workflows.conversation import Turn
from rft.workflows.messages import Message


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Asks for the next turn of a conversation. Texts are valid UTF-8, numbers within the ranges of the protocols.

    Messages have one canonical form, whatever protocol they came by. ``role``: system, user, assistant or tool.
    ``content``: always a text, empty if there is none. Of an assistant, where there are any: ``tool_calls``, a list of
    ``{"id", "type": "function", "function": {"name", "arguments"}}`` with the arguments as a dict, and
    ``reasoning_content``, a text. Of a tool: ``tool_call_id``, and ``name`` if the call is known. Of others: ``name``
    if the client gave one. No other keys.
    """

    messages: tuple[Message, ...]
    """The whole history; at least one."""
    model: str = ""
    """The name that the client gave; nothing depends on it."""
    tools: tuple[dict[str, Any], ...] = ()
    """OpenAI's function schemas: ``{"type": "function", "function": {"name", "description", "parameters"}}``."""
    tool_choice: str = "auto"
    """``auto``, ``none``, ``required`` or the name of one of ``tools``."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    """Number of turns to draw for the same history."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The turns that were written for a request."""

    turns: tuple[Turn, ...]
    """``n`` turns, in the order of the choices."""
    prompt_token_ids: Sequence[int]
    """The tokens that the policy read."""
    cached_tokens: int = 0
    """How many of them it had read in an earlier turn."""


@dataclass(frozen=True, slots=True)
class SessionReward:
    """A reward for a session: exactly one of ``value`` and ``rewards`` is given."""

    value: float | None = None
    turn: int | None = None
    """The turn that ``value`` is for (Turn.index); None for the whole session."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Rewards of the whole session by name."""
    revision: int = 0
    """A higher revision replaces what came before it."""


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """Asks for the sessions of one group: their rollouts are compared with each other."""

    group: str | None = None
    """Its name; None for one that cannot be guessed."""
    samples: int = 1
    answer: str | None = None
    """The right answer, for reward functions."""
    metadata: str = "{}"
    """JSON object, for reward functions."""


class Sessions(Protocol):
    """Keeps the sessions. All methods are called in one event loop, many at once; a canceled call ends its work.

    A session's name matches :data:`producers.gateway.access.NAME`.
    """

    @property
    def models(self) -> Sequence[str]:
        """Names of the models that are served, the first one as the default."""
        ...

    async def complete(self, session: str, request: ChatRequest) -> Answer:
        """Return the next turn. It is on the log by then. A session that is new is opened, if agents may do so."""
        ...

    async def count(self, session: str, request: ChatRequest) -> int:
        """Return how many tokens the policy would read for ``request``. Generates nothing and opens no session."""
        ...

    async def reward(self, session: str, reward: SessionReward) -> None:
        """Take a reward. It is on the log by the return."""
        ...

    async def describe(self, session: str) -> Mapping[str, Any]:
        """Return what is known of a session, as JSON. It has ``state`` (``open`` or ``ended``) and ``turns`` (int)."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens kept."""
        ...


class SessionOpening(Protocol):
    """Lets agents open and end sessions by themselves. Called as :class:`Sessions` is."""

    async def open_group(self, request: GroupRequest) -> Mapping[str, Any]:
        """Open the sessions of a group. Return its ``group_id`` and the ``sessions``' names, as JSON.

        Asked again for the same group, it returns the same sessions. Raises RequestError if the group was opened with
        other samples, answer or metadata.
        """
        ...

    async def end(self, session: str, reward: SessionReward | None = None) -> Mapping[str, Any]:
        """End a session, with a last reward if there is one. Return what was published of it, as JSON.

        It is on the log by then. Asked again, it returns the same.
        """
        ...


class SessionError(RftError):
    """A session cannot serve a request."""


class UnknownSessionError(SessionError):
    """There is no session of this name, and agents may not open one (404)."""


class SessionEndedError(SessionError):
    """The session has ended: its experience is on the log (410)."""


class OverloadedError(SessionError):
    """Too much is under way; the request was not begun (429 with Retry-After)."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
