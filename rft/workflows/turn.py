"""Defines a turn: what the policy wrote at once in a conversation, as tokens and taken apart. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rft.policy.base import Generation
from rft.workflows.messages import Message, ParseReply, Reply
from schemas.events import LogprobArray, TokenArray


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What the policy wrote at once. Arrays have one element a token it wrote (N)."""

    index: int
    """Which turn of the conversation, from 0."""
    text: str
    """The text, special tokens left out, up to the stop text that ended it."""
    raw: str
    """The text with special tokens, up to the end token or the stop text."""
    reply: Reply
    tokens: TokenArray
    """int32 [N], end token included"""
    logprobs: LogprobArray
    """float32 [N]"""
    versions: TokenArray
    """int32 [N]"""
    finish_reason: str
    """``stop`` or ``length``."""
    prompt_tokens: int
    """Number of tokens that the policy read for it."""

    @property
    def content(self) -> str:
        """The text without thinking and tool calls."""
        return self.reply.content

    @property
    def message(self) -> Message:
        """The turn as a message."""
        return self.reply.message


class Decode(Protocol):
    """Returns the text of token ids, special tokens kept or left out."""

    def __call__(self, tokens: list[int], *, special: bool) -> str: ...


def make_turn(
    index: int, generation: Generation, stop: tuple[str, ...], prompt_tokens: int, decode: Decode, parse: ParseReply
) -> Turn:
    """Return the turn that a generation is.

    Args:
        index: Which turn of its conversation.
        generation: What the policy wrote.
        stop: The texts at which it was to end.
        prompt_tokens: Number of tokens that the policy read.
        decode: Decodes what it wrote.
        parse: Takes its text apart.
    """
    written = generation.tokens.tolist()
    raw, text = decode(written, special=True), decode(written, special=False)
    if any(end in raw for end in stop):
        raw, text = _before(raw, stop), _before(text, stop)
    elif generation.finish_reason == "stop":
        raw = decode(written[:-1], special=True)
    return Turn(
        index=index,
        text=text,
        raw=raw,
        reply=parse(raw),
        tokens=generation.tokens,
        logprobs=generation.logprobs,
        versions=generation.versions,
        finish_reason=generation.finish_reason,
        prompt_tokens=prompt_tokens,
    )


def without_end(turn: Turn, everything: str) -> tuple[str, str]:
    """Return a turn's whole text without its end token, and the end token's text."""
    if everything.startswith(turn.raw) and turn.finish_reason == "stop":
        return turn.raw, everything[len(turn.raw) :]
    return everything, ""


def _before(text: str, stop: tuple[str, ...]) -> str:
    return text[: min((found for end in stop if (found := text.find(end)) >= 0), default=len(text))]
