"""Reads JSON that a stranger sent: bounded in depth and number of values, with finite numbers and valid texts. Pure."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from producers.gateway.faults import RefusedError
from rft.texts import utf8_fault

MAX_DEPTH = 64
"""Levels of arrays and objects in each other. Tool schemas need about ten."""
MAX_VALUES = 200_000
"""Values in one body."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``. Raises RefusedError if it is none or breaks a bound."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, an integer of too many digits
        raise RefusedError("", f"the body is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise RefusedError("", "the body must be a JSON object")
    _check(value)
    return value


def _check(value: object) -> None:
    """Visit level by level, so that no depth can exhaust the stack."""
    level, seen = [value], 0
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
                raise RefusedError("", "the body holds a number that is too large")
        seen += len(below)
        if seen > MAX_VALUES:
            raise RefusedError("", f"the body holds more than {MAX_VALUES} values")
        if not below:
            return
        level = below
    raise _too_deep()


def _check_text(text: str) -> None:
    if not text.isascii() and (fault := utf8_fault(text)):
        raise RefusedError("", f"a text in the body {fault}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _too_deep() -> RefusedError:
    return RefusedError("", f"the body nests deeper than {MAX_DEPTH} levels")
