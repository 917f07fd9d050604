"""Writes what passes between a role and a process of its own: JSON, one object a line. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_FAULT_CHARS = 1000


class WireError(Exception):
    """What a process gave is no message. The text says why."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line. Raises WireError if it is no plain JSON."""
    try:
        return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"cannot be written as JSON: {error}") from error


def decode(line: bytes) -> dict[str, Any]:
    """Return the message of a line. Raises WireError if it is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise WireError(f"is a {type(message).__name__}, not an object")
    return message
