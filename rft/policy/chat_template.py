"""Renders chat messages as the text that a model was trained on, by the template of its tokenizer.

Messages are in OpenAI's format: ``role``, ``content`` (a text), and what else the template reads (``tool_calls``, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rft.errors import RequestError
from rft.policy.lost_characters import note_lost_characters

Message = Mapping[str, Any]


class ChatTemplate:
    """Is the chat template of one tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None) -> None:
        """Use the template of a Hugging Face tokenizer; if it has none, only ``render`` fails.

        ``options`` are variables of the template (``policy.template_options``).
        """
        self._tokenizer = tokenizer
        self._options = dict(options or {})

    @property
    def source(self) -> str:
        """The template's text, in Jinja; empty if there is none."""
        template = getattr(self._tokenizer, "chat_template", None)
        return template if isinstance(template, str) else ""

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, *, prompting: bool
    ) -> str:
        """Return the conversation as text, beginning with the special tokens that the template writes.

        Args:
            messages: The conversation.
            tools: Schemas of the functions that the model may call, in OpenAI's format.
            prompting: Whether the text ends where the assistant begins to write.

        Raises RequestError if there is no template or it fails.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            raise RequestError(
                "the model's tokenizer has no chat template: set tokenizer.chat_template and save it in the folder of "
                "policy.model, or use a workflow without chat messages"
            )
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tools=[dict(tool) for tool in tools] if tools else None,
                    tokenize=False,
                    add_generation_prompt=prompting,
                    **self._options,
                )
            )
        # A template is a program of the model's authors and may raise anything.
        except Exception as error:
            raise RequestError(f"the chat template fails: {type(error).__name__}: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Return the token ids of rendered text: no special token is added to those that the text spells."""
        tokens = [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]
        note_lost_characters(self._tokenizer, text, tokens)
        return tokens

    def decode(self, tokens: Sequence[int], *, special: bool) -> str:
        """Return the text of token ids, with or without special tokens."""
        return str(
            self._tokenizer.decode(
                [int(token) for token in tokens],
                skip_special_tokens=not special,
                clean_up_tokenization_spaces=False,
            )
        )
