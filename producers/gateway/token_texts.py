"""Gives each token the text that it adds. Pure.

A tokenizer's ``decode`` may drop a space at the beginning, and returns U+FFFD for a part of a character. So each token
is decoded together with the few before it. Of a character that takes several tokens, the last one has all its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

PARTIAL = "\ufffd"
MOST_PARTS = 8
"""No character takes more tokens than this: after so many, U+FFFD is what the model wrote."""


def token_texts(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return one text a token. Joined they are the text of all; the time is linear in their number."""
    texts: list[str] = []
    before, start = 0, 0  # tokens[before:start] are complete characters, and the context of those that follow
    for end in range(1, len(tokens) + 1):
        known, text = decode(tokens[before:start]), decode(tokens[before:end])
        if text.endswith(PARTIAL) and end - start < MOST_PARTS and end < len(tokens):
            texts.append("")
            continue
        texts.append(text[len(known) :] if text.startswith(known) else decode(tokens[start:end]))
        before, start = start, end
    return texts
