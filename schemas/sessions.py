"""Defines the typed records of agents' sessions: the topics ``turns`` and ``sessions``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.record import LogprobArray, Record, TokenArray

if TYPE_CHECKING:
    from schemas.events import Task

OPEN, ENDED = "open", "ended"
"""States of a session."""
BEGINS = -1
"""``Turn.extends`` of a turn that begins a conversation with nothing before it."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn(Record):
    """What the policy wrote at once for an agent, and what it read for it. ``tokens``, ``logprobs`` and ``versions``
    have one element a token that it wrote (N)."""

    session_id: str
    number: int
    """Index in the session, from 0, with gaps where a turn was never answered."""
    conversation: int
    """Which conversation of the session, from 0."""
    extends: int
    """Number of the turn that it goes on from; :data:`BEGINS` if it goes on from none."""
    begins: bool
    """True for the first turn of its conversation. It is a fork if it extends a turn all the same."""
    request: str
    """Digest of history, tools and sampling: the same request made again has the same."""
    choice: int
    """Which of the ``choices`` turns that the request asked for, from 0."""
    choices: int
    messages: str
    """JSON array of the messages after the turn that it extends."""
    tools: str
    """JSON array of OpenAI's function schemas; empty unless it extends no turn."""
    tool_choice: str
    tokens_before: int
    """How many tokens of its row it read again, unchanged; 0 if it read none of them."""
    prompt_tokens: TokenArray
    """int32 [P]: the token ids that it read after those."""
    tokens: TokenArray
    """int32 [N], end token included."""
    logprobs: LogprobArray
    """float32 [N]"""
    versions: TokenArray
    """int32 [N]. Run-length on the wire."""
    finish_reason: str
    """``stop`` or ``length``."""
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int
    """Seeded its random numbers."""
    generation: int
    """Which generation of the session wrote it, from 0, failed ones included."""
    created_at: int
    """Unix time in ms."""
    group_id: str = ""
    """Group of the session's experience."""


@dataclass(frozen=True, slots=True)
class TurnPlace:
    """The exact place of one turn in ``turns``."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class GivenReward:
    """A reward that was sent to a session; for the whole of it if it has neither name nor turn."""

    name: str | None
    turn: int | None
    value: float
    revision: int


@dataclass(frozen=True, slots=True, eq=False)
class Session(Record):
    """The state of one session, as pointers into ``turns``. The newest record of a session counts."""

    session_id: str
    state: str
    """``open`` or ``ended``."""
    task: Task
    """What it is for."""
    sample: int
    """Which sample of the task's group it is."""
    seed: int
    """Those of its generations are made from it."""
    turns: tuple[TurnPlace, ...]
    """In the order in which they became part of it; the choices of one request stand together."""
    rewards: tuple[GivenReward, ...]
    created_at: int
    """Unix time in ms at which it was opened."""
    revision: int
    """Counts the session's records, from 0."""
    source: str
    """The process that wrote this record."""
    metadata: str = "{}"
    """JSON object that the gateway keeps with the session."""
