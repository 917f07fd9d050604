"""Writes answers of OpenAI's Chat Completions, whole or as a stream of chunks. Pure.

Fields beyond OpenAI's: ``rft`` names the session and its turns, ``prompt_token_ids`` and each choice's ``token_ids``
hold the exact tokens (named as vLLM names them), and ``reasoning_content`` the thinking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from producers.gateway.chat import ChatOptions
from producers.gateway.contract import Answer
from producers.gateway.pieces import DONE, data, pieces, to_json
from producers.gateway.token_texts import token_texts
from rft.workflows.conversation import Turn


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """An answer and how it is to be written."""

    answer: Answer
    options: ChatOptions
    session: str
    id: str
    """Begins with ``chatcmpl-``."""
    created: int
    """Unix time, seconds."""
    decode: Callable[[Sequence[int]], str]

    def whole(self) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        body = self._head("chat.completion")
        body["choices"] = [self._choice(index, turn) for index, turn in enumerate(self.answer.turns)]
        body["usage"] = usage(self.answer)
        if self.options.token_ids:
            body["prompt_token_ids"] = token_ids(self.answer.prompt_token_ids)
        return body

    def events(self) -> Iterator[bytes]:
        """Yield the stream of one answer, choice by choice."""
        for index, turn in enumerate(self.answer.turns):
            first: dict[str, Any] = {"role": "assistant", "content": ""}
            yield self._chunk(index, first, prompt=not index and self.options.token_ids)
            for text in pieces(turn.reply.thinking):
                yield self._chunk(index, {"reasoning_content": text})
            for text in pieces(turn.reply.content):
                yield self._chunk(index, {"content": text})
            for number, call in enumerate(turn.reply.tool_calls):
                name = {"name": call.name, "arguments": ""}
                yield self._call_chunk(index, number, {"id": call.id, "type": "function", "function": name})
                for text in pieces(to_json(dict(call.arguments))):
                    yield self._call_chunk(index, number, {"function": {"arguments": text}})
            yield self._chunk(index, {}, turn)
        if self.options.include_usage:
            yield data(self._head("chat.completion.chunk") | {"choices": [], "usage": usage(self.answer)})
        yield DONE

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.options.model,
            "rft": extension(self.session, self.answer),
        }

    def _choice(self, index: int, turn: Turn) -> dict[str, Any]:
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": to_json(dict(call.arguments))},
            }
            for call in turn.reply.tool_calls
        ]
        message: dict[str, Any] = {"role": "assistant", "content": turn.reply.content or (None if calls else "")}
        if turn.reply.thinking:
            message["reasoning_content"] = turn.reply.thinking
        if calls:
            message["tool_calls"] = calls
        return {"index": index, "message": message} | self._end(turn)

    def _end(self, turn: Turn) -> dict[str, Any]:
        end: dict[str, Any] = {"finish_reason": finish_reason(turn), "logprobs": None}
        if self.options.logprobs:
            end["logprobs"] = {"content": logprobs(turn, self.decode), "refusal": None}
        if self.options.token_ids:
            end["token_ids"] = token_ids(turn.tokens)
        return end

    def _chunk(self, index: int, delta: dict[str, Any], end: Turn | None = None, prompt: bool = False) -> bytes:
        chunk = self._head("chat.completion.chunk")
        ending = self._end(end) if end else {"finish_reason": None, "logprobs": None}
        chunk["choices"] = [{"index": index, "delta": delta} | ending]
        if prompt:
            chunk["prompt_token_ids"] = token_ids(self.answer.prompt_token_ids)
        if self.options.include_usage:
            chunk["usage"] = None
        return data(chunk)

    def _call_chunk(self, index: int, number: int, call: dict[str, Any]) -> bytes:
        return self._chunk(index, {"tool_calls": [{"index": number} | call]})


def finish_reason(turn: Turn) -> str:
    """Return OpenAI's reason: a turn that was cut off is ``length``, even with calls in it."""
    if turn.finish_reason == "stop" and turn.reply.tool_calls:
        return "tool_calls"
    return turn.finish_reason


def usage(answer: Answer) -> dict[str, Any]:
    """Return the number of tokens that were read and written, all choices together."""
    read, written = len(answer.prompt_token_ids), sum(len(turn.tokens) for turn in answer.turns)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def logprobs(turn: Turn, decode: Callable[[Sequence[int]], str]) -> list[dict[str, Any]]:
    """Return the log-probability of each token that the policy wrote, special tokens included."""
    tokens = token_ids(turn.tokens)
    return [
        {"token": text, "bytes": list(text.encode()) or None, "logprob": float(logprob), "top_logprobs": []}
        for text, logprob in zip(token_texts(tokens, decode), turn.logprobs, strict=True)
    ]


def token_ids(tokens: Sequence[int] | Any) -> list[int]:
    """Return token ids as JSON can hold them."""
    return [int(token) for token in tokens]


def extension(session: str, answer: Answer) -> dict[str, Any]:
    """Return what every protocol says of the session: rewards by turn name these turns.

    ``faults`` says why calls of a turn could not be read: protocols have no place for a call that is none.
    """
    said: dict[str, Any] = {"session": session, "turns": [turn.index for turn in answer.turns]}
    if any(turn.reply.faults for turn in answer.turns):
        said["faults"] = [list(turn.reply.faults) for turn in answer.turns]
    return said
