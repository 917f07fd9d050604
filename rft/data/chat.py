"""Texts and conversations as tokens, with a mask over exactly what the expert wrote.

Prompt and answer are tokenised apart, as they are when a policy writes the answer: its first token never merges with
the prompt's last. An answer ends with the token by which the policy would end it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rft.data.errors import RowError
from schemas.events import MaskArray, TokenArray

Message = Mapping[str, Any]
WRITER = "assistant"


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One sequence as it will be learned from; arrays are [T]."""

    prompt: str
    response: str
    tokens: TokenArray
    """int32 [T]"""
    action_mask: MaskArray
    """uint8 [T]: 1 where the expert wrote the token, its end included."""


class Tokens:
    """What a model's tokenizer makes of texts and conversations."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        """``tokenizer`` is Hugging Face's; ``ends`` are the tokens by which the policy ends what it writes."""
        self._tokenizer = tokenizer
        self._ends = ends

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation that the policy is to continue, as text. Raises RowError."""
        return self._render(messages, True)

    def text(self, prompt: str, response: str) -> Written:
        """A plain prompt and what the expert wrote after it. Raises RowError when the prompt has no token."""
        given = self._tokenizer.encode(prompt)
        if not given:
            raise RowError("the prompt is empty: there is nothing that the first token could be predicted from")
        written = self._encode(response)
        if self._tokenizer.eos_token_id is not None:
            written.append(int(self._tokenizer.eos_token_id))
        return _written(prompt, response, [(given, 0), (written, 1)])

    def conversation(self, messages: Sequence[Message], context: int = 0) -> Written:
        """A conversation; what the assistant says after the first ``context`` messages is what the expert wrote.

        Raises RowError when there is none, or when the chat template changes earlier messages as later ones come.
        """
        pieces: list[tuple[list[int], int]] = []
        done, first, last = "", None, ""
        for place, message in enumerate(messages):
            if place < context or message.get("role") != WRITER:
                continue
            before = self._render(messages[:place], True) if place else ""
            after = self._render(messages[: place + 1], False)
            if not before.startswith(done) or not after.startswith(before):
                raise RowError(
                    "the chat template writes earlier messages otherwise when later ones follow; give each turn as a "
                    "row of its own"
                )
            first = before if first is None else first
            pieces += [(self._encode(before[len(done) :]), 0), *self._turn(after[len(before) :])]
            done, last = after, str(message["content"])
        if first is None:
            raise RowError(f"no answer has the role {WRITER!r}: there is nothing to learn from")
        if not first:
            raise RowError("the conversation begins with the answer: nothing could predict its first token")
        return _written(first, last, pieces)

    def _turn(self, text: str) -> list[tuple[list[int], int]]:
        """What the expert wrote, up to its end token, and what the template puts after that."""
        tokens = self._encode(text)
        end = next((place + 1 for place, token in enumerate(tokens) if token in self._ends), len(tokens))
        return [(tokens[:end], 1), (tokens[end:], 0)]

    def _render(self, messages: Sequence[Message], prompting: bool) -> str:
        if not getattr(self._tokenizer, "chat_template", None):
            raise RowError("it holds chat messages, but the model's tokenizer has no chat template")
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, add_generation_prompt=prompting
                )
            )
        # A template is the model maker's program and may raise anything.
        except Exception as error:
            raise RowError(f"the chat template refuses it: {type(error).__name__}: {error}") from error

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def check_messages(value: Any, column: str) -> list[Message]:
    """The value as chat messages. Raises RowError."""
    if not isinstance(value, list) or not value:
        raise RowError(f"column {column!r} must be a list of chat messages, found {_shown(value)}")
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RowError(f"column {column!r} holds {_shown(message)}, which is no message with a role")
        if not isinstance(message.get("content"), str):
            raise RowError(f"column {column!r}: the content of a message of {message['role']!r} must be a text")
    return value


def _written(prompt: str, response: str, pieces: Sequence[tuple[list[int], int]]) -> Written:
    tokens = np.array([token for piece, _ in pieces for token in piece], dtype=np.int32)
    mask = np.repeat(np.array([by for _, by in pieces], np.uint8), [len(piece) for piece, _ in pieces])
    return Written(prompt, response, tokens, mask)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
