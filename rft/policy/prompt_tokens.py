"""Turns the text of a prompt into tokens, with any tokenizer. Needs neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rft.policy.lost_characters import note_lost_characters


class PromptTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that a prompt needs."""

    bos_token_id: int | None

    def encode(self, text: str) -> list[int]: ...


class Tokenizer(PromptTokenizer, Protocol):
    """The part of a Hugging Face tokenizer that we use."""

    eos_token_id: int | None
    pad_token_id: int | None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...

    def save_pretrained(self, save_directory: str | Path) -> object: ...


def encode_prompt(tokenizer: PromptTokenizer, text: str) -> list[int]:
    """Return the token ids of a prompt, with the special tokens that the tokenizer adds, and one first token (BOS).

    Chat templates of Llama 3, Gemma and others spell the first token themselves. A tokenizer that adds it to each text
    would put it there twice, and no model has seen that.
    """
    tokens = tokenizer.encode(text)
    note_lost_characters(tokenizer, text, tokens)
    first = tokenizer.bos_token_id
    if first is not None and tokens[:2] == [first, first]:
        return tokens[1:]
    return tokens
