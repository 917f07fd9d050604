"""Writes a turn as a record of the log, and reads from a record what the policy read and wrote. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from producers.gateway.contract import ChatRequest
from producers.gateway.turn_writing import Written
from rft.policy.base import Generation
from rft.workflows.conversation import Conversation
from rft.workflows.messages import Message
from schemas.errors import DecodeError
from schemas.sessions import BEGINS, Turn


def turn_records(
    written: Sequence[Written],
    numbers: Sequence[int],
    request: ChatRequest,
    digest: str,
    conversation: Conversation,
    *,
    session_id: str,
    group_id: str,
    now_ms: int,
) -> list[Turn]:
    """Return the records of all choices of a request.

    Args:
        written: What was read and written for each choice.
        numbers: The number of each turn in the session.
        request: What was asked.
        digest: Names the request.
        conversation: That of the first choice, with the messages that the request added to it.
        session_id: Names the session.
        group_id: Group of its experience.
        now_ms: Unix time.
    """
    messages = _to_json(conversation.unanswered)
    return [
        Turn(
            session_id=session_id,
            number=number,
            conversation=one.conversation,
            extends=one.extends,
            begins=one.begins,
            request=digest,
            choice=choice,
            choices=len(written),
            messages=messages,
            tools=_to_json(conversation.tools) if one.extends == BEGINS else "",
            tool_choice=request.tool_choice,
            tokens_before=one.prompt.tokens_before,
            prompt_tokens=np.array(one.prompt.new, np.int32),
            tokens=one.generation.tokens,
            logprobs=one.generation.logprobs,
            versions=one.generation.versions,
            finish_reason=one.generation.finish_reason,
            max_tokens=one.prompt.sampling.max_tokens,
            temperature=one.prompt.sampling.temperature,
            top_p=one.prompt.sampling.top_p,
            stop=one.prompt.sampling.stop,
            seed=one.prompt.sampling.seed,
            generation=one.call,
            created_at=now_ms,
            group_id=group_id,
        )
        for choice, (one, number) in enumerate(zip(written, numbers, strict=True))
    ]


def answers(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    """Yield the turns of one request after the other. Raises DecodeError if choices of one are missing."""
    begin = 0
    while begin < len(turns):
        first = turns[begin]
        choices = turns[begin : begin + max(first.choices, 1)]
        expected = [(first.request, choice, first.choices) for choice in range(first.choices)]
        if [(turn.request, turn.choice, turn.choices) for turn in choices] != expected:
            raise DecodeError(f"the turns of session {first.session_id} from turn {first.number} on are not whole")
        yield choices
        begin += len(choices)


def messages_of_turn(turn: Turn) -> tuple[list[Message], list[dict[str, Any]]]:
    """Return the messages before a turn that came after the one that it extends, and its tools. Raises DecodeError."""
    try:
        messages, tools = json.loads(turn.messages), json.loads(turn.tools or "[]")
    except ValueError as error:
        raise DecodeError(f"the messages of turn {turn.number} of session {turn.session_id} are no JSON") from error
    for found in (messages, tools):
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise DecodeError(f"the messages of turn {turn.number} of session {turn.session_id} are no objects")
    return messages, tools


def generation_of_turn(turn: Turn) -> Generation:
    """Return what the policy wrote."""
    return Generation(turn.tokens, turn.logprobs, turn.versions, turn.finish_reason)


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
