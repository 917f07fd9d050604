"""Reads JSON that a stranger sent: bounded in depth and number of values, with finite numbers and valid texts. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from producers.gateway.faults import RefusedError
from rft.texts import utf8_fault

MAX_DEPTH = 64
"""Levels of arrays and objects in each other. Tool schemas need about ten."""
MAX_VALUES = 200_000
"""Values in one body."""
TOO_DEEP = f"nests deeper than {MAX_DEPTH} levels"
STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
"""The texts in a body. Possessive, so that a body of one endless text takes neither time nor memory."""


def parse_object(body: bytes, what: str = "the body") -> dict[str, Any]:
    """Return the JSON object in ``body``. Raises RefusedError, which begins with ``what``, if it breaks a bound."""
    try:
        _check_size(body)
        value = json.loads(body.decode(), parse_constant=_no_constant)
        if not isinstance(value, dict):
            raise RefusedError("", "must be a JSON object")
        _check(value)
    except RefusedError as error:
        raise RefusedError("", f"{what} {error}") from error
    except RecursionError as error:
        raise RefusedError("", f"{what} {TOO_DEEP}") from error
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, an integer of too many digits
        raise RefusedError("", f"{what} is no JSON: {str(error)[:200]}") from error
    return value


def _check_size(body: bytes) -> None:
    """Refuse too many values before they take memory. A value has a comma or a bracket of its own before it."""
    if _marks(body) > MAX_VALUES and _marks(STRINGS.sub(b"", body)) > MAX_VALUES:
        raise RefusedError("", f"holds more than {MAX_VALUES} values")


def _marks(body: bytes) -> int:
    return sum(map(body.count, (b",", b"[", b"{")))


def _check(value: object) -> None:
    """Visit level by level, so that no depth can exhaust the stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise RefusedError("", "holds a number that is too large")
        if not below:
            return
        level = below
    raise RefusedError("", TOO_DEEP)


def _check_text(text: str) -> None:
    if not text.isascii() and (fault := utf8_fault(text)):
        raise RefusedError("", f"holds a text that {fault}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
