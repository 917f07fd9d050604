"""Checks texts before they are published."""

from __future__ import annotations

import math

EXACT = 2**53
"""A float beyond it may stand for another whole number than the one that was written."""


def answer_text(value: object) -> str | None:
    """Return a reference answer as text; None stays None.

    A whole number loses its fraction, since libraries make 42.0 of 42, and no model writes that. Raises ValueError,
    which says what was found, if the answer is neither a text nor a finite number.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a text, a number or absent, found {value!r:.80}")
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, found {value}")
    return str(int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value)


def utf8_fault(text: str) -> str | None:
    r"""Return why a text cannot be written as UTF-8; None if it can.

    JSON may hold one half of a surrogate pair (``"\ud83d"``), which is no character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"cannot be written as UTF-8: a lone surrogate, {text[error.start]!r}, is at character {error.start}"
    return None
