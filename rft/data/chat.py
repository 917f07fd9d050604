"""Turns texts and conversations into tokens, with a mask over exactly what the expert wrote.

Prompt and answer are tokenized separately, as they are when a policy writes the answer, so the answer's first token
never merges with the prompt's last. An answer ends with the token with which the policy would end it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rft.errors import RequestError, RowError
from rft.policy.chat_template import ChatTemplate, Message
from rft.policy.prompt_tokens import encode_prompt
from rft.texts import utf8_fault
from schemas.events import MaskArray, TokenArray

WRITER = "assistant"


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One sequence to learn from; arrays are [T]."""

    prompt: str
    response: str
    tokens: TokenArray
    """int32 [T]"""
    action_mask: MaskArray
    """uint8 [T]: 1 where the expert wrote the token, the end token included."""


class Tokens:
    """Tokenizes texts and conversations for one model."""

    def __init__(
        self,
        tokenizer: Any,
        ends: frozenset[int],
        template_options: Mapping[str, Any] | None = None,
        context: int | None = None,
    ) -> None:
        """Use a Hugging Face tokenizer.

        Args:
            tokenizer: The tokenizer.
            ends: The tokens with which the policy ends an answer.
            template_options: Variables of its chat template (``policy.template_options``).
            context: The most tokens that the model reads and writes together; None if its configuration does not say.
        """
        self.context = context
        self._tokenizer = tokenizer
        self._chat = ChatTemplate(tokenizer, template_options)
        self._ends = ends

    def render(self, messages: Sequence[Message]) -> str:
        """Return as text a conversation for the policy to continue. Raises RowError."""
        return self._render(messages, True)

    def check_prompt(self, prompt: str) -> None:
        """Check that the model can write something after a prompt. Raises RowError."""
        # A token is a byte or more, nearly always. So most prompts need no tokenizer.
        if self.context is None or len(prompt.encode()) < self.context // 2:
            return
        size = len(encode_prompt(self._tokenizer, prompt))
        if size >= self.context:
            raise RowError(
                f"has a prompt of {size} tokens, which leaves no room for an answer in the model's context of "
                f"{self.context}"
            )

    def text(self, prompt: str, response: str) -> Written:
        """Return a plain prompt and what the expert wrote after it. Raises RowError if the prompt has no token."""
        given = encode_prompt(self._tokenizer, prompt)
        if not given:
            raise RowError("the prompt is empty, so there is nothing to predict the first token from")
        written = self._encode(response)
        if self._tokenizer.eos_token_id is not None:
            written.append(int(self._tokenizer.eos_token_id))
        return _written(prompt, response, [(given, 0), (written, 1)])

    def conversation(self, messages: Sequence[Message], context: int = 0) -> Written:
        """Return a conversation in which the expert wrote what the assistant says after the first ``context`` messages.

        Raises RowError if there are none, or if the chat template changes earlier messages when later ones follow.
        """
        pieces: list[tuple[list[int], int]] = []
        done, first, last = "", None, ""
        for index, message in enumerate(messages):
            if index < context or message.get("role") != WRITER:
                continue
            before = self._render(messages[:index], True) if index else ""
            after = self._render(messages[: index + 1], False)
            if not before.startswith(done) or not after.startswith(before):
                raise RowError(
                    "the chat template changes earlier messages when later ones follow; put each turn into a "
                    "separate row"
                )
            first = before if first is None else first
            pieces += [(self._encode(before[len(done) :]), 0), *self._turn(after[len(before) :])]
            done, last = after, str(message["content"])
        if first is None:
            raise RowError(f"no message has the role {WRITER!r}, so there is nothing to learn from")
        if not first:
            raise RowError("the conversation begins with the answer, so nothing predicts its first token")
        return _written(first, last, pieces)

    def _turn(self, text: str) -> list[tuple[list[int], int]]:
        """Return what the expert wrote, up to its end token, and what the template puts after that."""
        tokens = self._encode(text)
        end = next((index + 1 for index, token in enumerate(tokens) if token in self._ends), len(tokens))
        return [(tokens[:end], 1), (tokens[end:], 0)]

    def _render(self, messages: Sequence[Message], prompting: bool) -> str:
        try:
            return self._chat.render(messages, prompting=prompting)
        except RequestError as error:
            raise RowError(str(error)) from error

    def _encode(self, text: str) -> list[int]:
        return self._chat.encode(text)


def check_messages(value: Any, column: str) -> list[Message]:
    """Return the value as chat messages. Raises RowError."""
    if not isinstance(value, list) or not value:
        raise RowError(f"column {column!r} must be a list of chat messages, found {_shown(value)}")
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RowError(f"column {column!r} holds {_shown(message)}, which is not a message with a role")
        if not isinstance(message.get("content"), str):
            raise RowError(f"column {column!r}: the content of a message of {message['role']!r} must be a text")
        if fault := utf8_fault(message["content"]) or utf8_fault(message["role"]):
            raise RowError(f"column {column!r}: a message of {message['role']!r:.80} {fault}")
    return value


def _written(prompt: str, response: str, pieces: Sequence[tuple[list[int], int]]) -> Written:
    tokens = np.array([token for piece, _ in pieces for token in piece], dtype=np.int32)
    mask = np.repeat(np.array([by for _, by in pieces], np.uint8), [len(piece) for piece, _ in pieces])
    return Written(prompt, response, tokens, mask)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
