"""Text to tokens and back, as every policy does it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from rft.policy.loading import load_tokenizer


class Tokenized:
    """The part of a :class:`rft.policy.base.Policy` that needs its tokenizer alone."""

    def __init__(self, model: str) -> None:
        """The tokenizer beside ``model``. Raises PolicyError when there is none."""
        self._tokenizer = load_tokenizer(model)
        # The samples of a group ask for the same prompt one after the other; a tokenizer's call costs 0.1 ms and more.
        self._encode = lru_cache(maxsize=16)(lambda text: tuple(self._tokenizer.encode(text)))

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, with the special tokens that the tokenizer adds to a text."""
        return list(self._encode(text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True)
