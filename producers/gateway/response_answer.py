"""Writes answers of OpenAI's Responses, whole or as a stream of events. Pure.

Fields beyond OpenAI's: ``rft`` names the session and its turn, ``prompt_token_ids`` and ``token_ids`` hold the exact
tokens if ``return_token_ids`` asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from producers.gateway.chat_answer import extension, logprobs, token_ids
from producers.gateway.contract import Answer, ChatRequest
from producers.gateway.history import call
from producers.gateway.pieces import data, pieces, to_json
from producers.gateway.responses import ResponseOptions
from rft.workflows.messages import Message


@dataclass(frozen=True, slots=True)
class ResponseAnswer:
    """An answer and how it is to be written. It has one turn."""

    answer: Answer
    request: ChatRequest
    options: ResponseOptions
    session: str
    key: str
    """What the ids of the response and its items have in common, unique."""
    created: int
    """Unix time, seconds."""
    decode: Callable[[Sequence[int]], str]

    @property
    def id(self) -> str:
        return f"resp_{self.key}"

    def message(self) -> Message:
        """Return the turn as a message of the history that continues this response."""
        reply = self.answer.turns[0].reply
        message: Message = {"role": "assistant", "content": reply.content}
        if reply.tool_calls:
            message["tool_calls"] = [call(made.id, made.name, dict(made.arguments)) for made in reply.tool_calls]
        if reply.thinking:
            message["reasoning_content"] = reply.thinking
        return message

    def whole(self) -> dict[str, Any]:
        """Return the response once it is finished."""
        turn = self.answer.turns[0]
        cut = turn.finish_reason == "length"
        read, written = len(self.answer.prompt_token_ids), len(turn.tokens)
        body = self._begun() | {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._items(),
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cached_tokens": self.answer.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": read + written,
            },
        }
        if self.options.token_ids:
            body["prompt_token_ids"] = token_ids(self.answer.prompt_token_ids)
            body["token_ids"] = token_ids(turn.tokens)
        return body

    def events(self) -> Iterator[bytes]:
        """Yield the stream of events that leads to the finished response."""
        for number, (kind, fields) in enumerate(self._events()):
            yield data({"type": kind, "sequence_number": number} | fields, kind)

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "response.created", {"response": self._begun()}
        yield "response.in_progress", {"response": self._begun()}
        for index, item in enumerate(self._items()):
            empty: dict[str, Any] = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
            yield (
                "response.output_item.added",
                {"output_index": index, "item": item | empty | {"status": "in_progress"}},
            )
            if item["type"] == "function_call":
                at: dict[str, Any] = {"item_id": item["id"], "output_index": index}
                for text in pieces(item["arguments"]):
                    yield "response.function_call_arguments.delta", at | {"delta": text}
                whole = {"arguments": item["arguments"], "name": item["name"]}
                yield "response.function_call_arguments.done", at | whole
            else:
                yield from _part_events(item, index)
            yield "response.output_item.done", {"output_index": index, "item": item}
        whole_body = self.whole()
        yield f"response.{whole_body['status']}", {"response": whole_body}

    def _begun(self) -> dict[str, Any]:
        """Return the response as it is before anything was written."""
        given = self.options.body
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": "in_progress",
            "model": self.request.model,
            "output": [],
            "error": None,
            "incomplete_details": None,
            "instructions": given.get("instructions"),
            "max_output_tokens": self.request.max_tokens,
            "metadata": given.get("metadata") or {},
            "parallel_tool_calls": True,
            "previous_response_id": self.options.previous,
            "store": self.options.store,
            "temperature": self.request.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": given.get("tool_choice") or "auto",
            "tools": given.get("tools") or [],
            "top_p": self.request.top_p,
            "truncation": "disabled",
            "usage": None,
            "rft": extension(self.session, self.answer),
        }

    def _items(self) -> list[dict[str, Any]]:
        turn = self.answer.turns[0]
        reply = turn.reply
        status = "incomplete" if turn.finish_reason == "length" else "completed"
        items: list[dict[str, Any]] = []
        if reply.thinking:
            thought = [{"type": "reasoning_text", "text": reply.thinking}]
            items.append({"type": "reasoning", "id": f"rs_{self.key}", "summary": [], "content": thought})
        if reply.content or not reply.tool_calls:
            part: dict[str, Any] = {"type": "output_text", "text": reply.content, "annotations": [], "logprobs": []}
            if self.options.logprobs:
                part["logprobs"] = [token | {"bytes": token["bytes"] or []} for token in logprobs(turn, self.decode)]
            items.append({"type": "message", "id": f"msg_{self.key}", "role": "assistant", "content": [part]})
        for number, made in enumerate(reply.tool_calls):
            ids = {"id": f"fc_{self.key}_{number}", "call_id": made.id}
            items.append({"type": "function_call", "name": made.name, "arguments": to_json(dict(made.arguments))} | ids)
        return [item | {"status": status} for item in items]


def _part_events(item: dict[str, Any], index: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of the one part of an item that holds text."""
    part = item["content"][0]
    text = "output_text" if item["type"] == "message" else "reasoning_text"
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    yield "response.content_part.added", at | {"part": part | {"text": ""}}
    spoken: dict[str, Any] = {"logprobs": []} if item["type"] == "message" else {}
    for piece in pieces(part["text"]):
        yield f"response.{text}.delta", at | {"delta": piece} | spoken
    done = {"text": part["text"]} | ({"logprobs": part["logprobs"]} if spoken else {})
    yield f"response.{text}.done", at | done
    yield "response.content_part.done", at | {"part": part}
