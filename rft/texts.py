"""Checks texts before they are published."""

from __future__ import annotations


def utf8_fault(text: str) -> str | None:
    r"""Return why a text cannot be written as UTF-8; None if it can.

    JSON may hold one half of a surrogate pair (``"\ud83d"``), which is no character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"cannot be written as UTF-8: a lone surrogate, {text[error.start]!r}, is at character {error.start}"
    return None
