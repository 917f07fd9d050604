"""Finds the recorded conversation that a request continues. Pure.

A client sends the whole history with each request. The gateway must find the conversation whose tokens it keeps, or
begin another one: for a sub-agent, or for a history that the client has rewritten or shortened. It compares what was
sent and answered before with what is sent now, message by message. Clients drop the reasoning of an answer, cut spaces
around it and write the arguments of calls in their own way, so these do not count.

Histories are compared by digests: the digest of n messages is made from that of the n - 1 before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from producers.gateway.contract import ChatRequest, Message


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same request was made before, and nobody has gone on from its answer: give the same answer again."""

    call: str


@dataclass(frozen=True, slots=True)
class Continue:
    """The request goes on from the end of a recorded conversation."""

    call: str
    """Names the request, see :class:`Repeat`."""
    history: str
    """Digest of its messages and tools."""
    conversation: int
    new: int
    """The messages from this index on are new."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The request goes on from no recorded conversation."""

    call: str
    history: str
    """Digest of its messages and tools."""


@dataclass(slots=True)
class _Known:
    tip: str
    """Digest of its history."""
    busy: bool = True
    """Whether a turn is being written."""
    call: str = ""
    """The request that its last turn answers."""


@dataclass(slots=True)
class Placement:
    """The conversations of one session, by number, and the requests that may be repeated."""

    _known: dict[int, _Known] = field(default_factory=dict)
    _idle: dict[str, list[int]] = field(default_factory=dict)
    """Conversations that no turn is written in, by the digest of their history."""
    _calls: set[str] = field(default_factory=set)
    """Requests that may be repeated."""

    def place(self, request: ChatRequest) -> Repeat | Continue | Begin:
        """Return how to serve a request. Changes nothing."""
        digests = history_digests(request)
        call = _call(request, digests[-1])
        if call in self._calls:
            return Repeat(call)
        for length in range(len(digests) - 1, 0, -1):
            if idle := self._idle.get(digests[length]):
                return Continue(call, digests[-1], idle[0], length)
        return Begin(call, digests[-1])

    def asked(self, call: str, history: str, conversations: Sequence[int]) -> set[str]:
        """Note that a request with this history is being answered in ``conversations``, one for each turn.

        The first may be a recorded one, which it continues; the others are new. Return the requests that need not be
        repeated any more: an answer from which somebody goes on has arrived.
        """
        arrived = set()
        for number in conversations:
            if number in self._known:
                self._release(number)
                arrived.add(self._known[number].call)
            self._known[number] = _Known(history, call=call)
        self._calls -= arrived
        self._calls.add(call)
        return arrived

    def history(self, conversation: int | None, tools: Sequence[Mapping[str, Any]], new: Sequence[Message]) -> str:
        """Return the digest of a history: of a recorded conversation, or of none with these tools, and new messages."""
        digest = _digest("", tools) if conversation is None else self._known[conversation].tip
        for message in new:
            digest = _extend(digest, message)
        return digest

    def answered(self, conversation: int, answer: Message) -> None:
        """Note that a turn was written in a conversation."""
        known = self._known[conversation]
        known.tip, known.busy = _extend(known.tip, answer), False
        self._idle.setdefault(known.tip, []).append(conversation)

    def forget(self, call: str) -> None:
        """Note that a request was not answered: if it comes again, it is a new one."""
        self._calls.discard(call)

    def failed(self, conversation: int, *, kept: bool) -> None:
        """Note that no turn was written in a conversation.

        If it is ``kept``, it holds the messages of the request and waits for an answer; otherwise it is gone.
        """
        known = self._known[conversation]
        if kept:
            known.busy = False
            self._idle.setdefault(known.tip, []).append(conversation)
        else:
            del self._known[conversation]

    def _release(self, number: int) -> None:
        tip = self._known[number].tip
        self._idle[tip].remove(number)
        if not self._idle[tip]:
            del self._idle[tip]


def history_digests(request: ChatRequest) -> list[str]:
    """Return the digests of the first 0, 1, 2, ... messages of a request. They differ where its tools differ."""
    digests = [_digest("", request.tools)]
    for message in request.messages:
        digests.append(_extend(digests[-1], message))
    return digests


def comparable(message: Message) -> Mapping[str, Any]:
    """Return what counts of a message when histories are compared."""
    content, role = message.get("content") or "", message["role"]
    if role == "tool":
        return {"role": role, "content": content, "id": message.get("tool_call_id")}
    if role != "assistant":
        return {"role": role, "content": content, "name": message.get("name")}
    calls = [
        (call.get("id"), call["function"]["name"], _arguments(call["function"].get("arguments")))
        for call in message.get("tool_calls") or ()
    ]
    return {"role": role, "content": content.strip(), "calls": calls}


def _arguments(arguments: Any) -> Any:
    """Return the arguments of a call; those of our own answers are JSON texts."""
    if isinstance(arguments, str):
        try:
            return json.loads(arguments)
        except ValueError:
            return arguments
    return arguments


def _extend(digest: str, message: Message) -> str:
    what = comparable(message)
    if what["role"] == "tool" or what.get("calls"):
        return _digest(digest, what)
    # Each request brings its whole history, so this runs for every message of it. JSON would take three times as long.
    name = what.get("name") or ""
    return _hash(f"{digest}\n{what['role']}\n{len(name)}\n{name}{what['content']}")


def _call(request: ChatRequest, digest: str) -> str:
    """Return the name of a request: requests are the same if history and sampling are."""
    settings = (request.tool_choice, request.max_tokens, request.temperature, request.top_p, request.stop, request.n)
    return _digest(digest, settings)


def _digest(before: str, value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return _hash(f"{before}\n{text}")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
