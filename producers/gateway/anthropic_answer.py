"""Writes answers of Anthropic's Messages, whole or as a stream of events. Pure.

Fields beyond Anthropic's: ``rft`` names the session and its turn, ``prompt_token_ids`` and ``token_ids`` hold the exact
tokens if ``return_token_ids`` asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from producers.gateway.anthropic_messages import MessageOptions
from producers.gateway.chat_answer import extension, token_ids
from producers.gateway.contract import Answer, ChatRequest
from producers.gateway.pieces import data, pieces, to_json

SIGNATURE = "unsigned"
"""Signature of a thinking block. Clients send it back; nothing checks it."""


@dataclass(frozen=True, slots=True)
class MessageAnswer:
    """An answer and how it is to be written. It has one turn."""

    answer: Answer
    request: ChatRequest
    options: MessageOptions
    session: str
    id: str
    """Begins with ``msg_``."""
    decode: Callable[[Sequence[int]], str]

    def whole(self) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        body = self._begun() | {"content": self._blocks()} | self._stopped()
        body["usage"] = self._usage(len(self.answer.turns[0].tokens))
        return body | self._token_ids()

    def events(self) -> Iterator[bytes]:
        """Yield the stream of one answer."""
        for kind, fields in self._events():
            yield data({"type": kind} | fields, kind)

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "message_start", {"message": self._begun() | {"usage": self._usage(0)}}
        for index, block in enumerate(self._blocks()):
            at = {"index": index}
            kind, field = {
                "thinking": ("thinking_delta", "thinking"),
                "text": ("text_delta", "text"),
                "tool_use": ("input_json_delta", "partial_json"),
            }[block["type"]]
            tool = block["type"] == "tool_use"
            empty: dict[str, Any] = {"input": {}} if tool else {field: ""}
            if "signature" in block:
                empty["signature"] = ""
            yield "content_block_start", at | {"content_block": block | empty}
            for piece in pieces(to_json(block["input"]) if tool else block[field]):
                yield "content_block_delta", at | {"delta": {"type": kind, field: piece}}
            if "signature" in block:
                yield "content_block_delta", at | {"delta": {"type": "signature_delta", "signature": SIGNATURE}}
            yield "content_block_stop", at
        usage = {"output_tokens": len(self.answer.turns[0].tokens)}
        yield "message_delta", {"delta": self._stopped(), "usage": usage} | self._token_ids()
        yield "message_stop", {}

    def _begun(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.request.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "rft": extension(self.session, self.answer),
        }

    def _blocks(self) -> list[dict[str, Any]]:
        reply = self.answer.turns[0].reply
        blocks: list[dict[str, Any]] = []
        if reply.thinking:
            blocks.append({"type": "thinking", "thinking": reply.thinking, "signature": SIGNATURE})
        if reply.content:
            blocks.append({"type": "text", "text": reply.content})
        blocks += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)}
            for call in reply.tool_calls
        ]
        return blocks

    def _stopped(self) -> dict[str, Any]:
        turn = self.answer.turns[0]
        if turn.finish_reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if turn.reply.tool_calls:
            return {"stop_reason": "tool_use", "stop_sequence": None}
        if self.request.stop:
            text = self.decode(token_ids(turn.tokens))
            met = [(place, stop) for stop in self.request.stop if (place := text.find(stop)) >= 0]
            if met:
                return {"stop_reason": "stop_sequence", "stop_sequence": min(met)[1]}
        return {"stop_reason": "end_turn", "stop_sequence": None}

    def _usage(self, written: int) -> dict[str, Any]:
        """Return the usage. What was read before does not count as input, as in Anthropic's API."""
        cached = self.answer.cached_tokens
        return {
            "input_tokens": len(self.answer.prompt_token_ids) - cached,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": written,
        }

    def _token_ids(self) -> dict[str, Any]:
        if not self.options.token_ids:
            return {}
        return {
            "prompt_token_ids": token_ids(self.answer.prompt_token_ids),
            "token_ids": token_ids(self.answer.turns[0].tokens),
        }
