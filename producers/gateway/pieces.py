"""Cuts finished texts into the pieces that a stream sends, and writes server-sent events. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

PIECE_CHARS = 64
"""Length of a piece. A turn is finished when its stream begins, so shorter ones only cost time."""
DONE = b"data: [DONE]\n\n"
"""Ends a stream of Chat Completions."""
KEEP_ALIVE = b": waiting for the policy\n\n"
"""A comment, which every client skips."""


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces, none if it is empty."""
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]


def data(value: Mapping[str, Any], event: str = "") -> bytes:
    """Return a server-sent event that holds ``value`` as JSON, with a name if ``event`` is given."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {to_json(value)}\n\n".encode()


def to_json(value: Any) -> str:
    """Return JSON on one line. Raises ValueError for numbers that JSON does not have."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
