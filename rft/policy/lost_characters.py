"""Notices characters that a tokenizer has no token for. The model reads a placeholder in their place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rft.telemetry.notes import NOTED, role_notes

log = logging.getLogger(__name__)


def lost_characters(tokenizer: Any, text: str, tokens: Sequence[int]) -> tuple[str, int]:
    """Return the placeholder in ``tokens``, the ids of ``text``, and how often it stands for something else.

    A tokenizer writes its unknown token, or its padding token if it was made so. A text may spell either, and padding
    that is also the first or the last token of a text is none.
    """
    edges = {getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None)}
    for name in ("unk_token", "pad_token"):
        written, number = getattr(tokenizer, name, None), getattr(tokenizer, f"{name}_id", None)
        if written is None or number is None or (name == "pad_token" and number in edges):
            continue
        if (lost := tokens.count(number) - text.count(written)) > 0:
            return str(written), lost
    return "", 0


def note_lost_characters(tokenizer: Any, text: str, tokens: Sequence[int]) -> None:
    """Warn if ``tokens``, the ids of ``text``, lack characters of it. Only the first warning is logged."""
    placeholder, lost = lost_characters(tokenizer, text, tokens)
    if not lost:
        return
    line = (
        f"the tokenizer of policy.model has no token for some characters of {text[:60]!r}: the model reads "
        f"{placeholder!r} in their place, {lost} times. Use a tokenizer that knows all characters of the tasks"
    )
    if role_notes().add("warning", line) == 1:
        log.warning("%s (further ones are only counted)", line, extra=NOTED)
