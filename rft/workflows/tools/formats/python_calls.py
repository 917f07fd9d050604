"""Reads Python calls with literal arguments, such as ``get_weather(city="Paris", days=[1, 2])`` (pure).

Python's own parser is not used: it may take very long, or end the process, on a text that is made for that.
"""

from __future__ import annotations

import re
from typing import Any

from rft.workflows.tools.formats.findings import Unreadable, skip_space

MAX_DEPTH = 32
_NAME = re.compile(r"[A-Za-z_]\w{0,255}(?:\.[A-Za-z_]\w{0,255}){0,8}")
_NUMBER = re.compile(r"[+-]?(?:\d{1,400}\.?\d{0,400}|\.\d{1,400})(?:[eE][+-]?\d{1,4})?(?![\w.])")
_STRING = re.compile(
    r"""[rR]?(?:'''((?:[^'\\]|\\.|'(?!''))*)'''|\"""((?:[^"\\]|\\.|"(?!""))*)\"""|"""
    r"""'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)")""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(\n|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_SIMPLE = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "a": "\a",
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_CONSTANTS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}


def read_call(text: str, start: int) -> tuple[str, dict[str, Any], int]:
    """Return the name, the arguments and the end of the call that begins at ``start``. Raises Unreadable."""
    start = skip_space(text, start)
    name = _NAME.match(text, start)
    if not name:
        raise Unreadable(f"a name of a tool is missing at {_at(text, start)}")
    at = _expect(text, name.end(), "(")
    arguments: dict[str, Any] = {}
    while not _is(text, at, ")"):
        key = _NAME.match(text, skip_space(text, at))
        if not key or "." in key[0] or not _is(text, key.end(), "="):
            raise Unreadable(f"give each argument with its name, as in {name[0]}(name=value), at {_at(text, at)}")
        if key[0] in arguments:
            raise Unreadable(f"the argument {key[0]} is given twice")
        arguments[key[0]], at = _value(text, _expect(text, key.end(), "="), 0)
        at = _separator(text, at, ")")
    return name[0], arguments, _expect(text, at, ")")


def _value(text: str, start: int, depth: int) -> tuple[Any, int]:
    start = skip_space(text, start)
    if depth > MAX_DEPTH:
        raise Unreadable("a value is nested too deeply")
    if match := _STRING.match(text, start):
        inside = next((group for group in match.groups() if group is not None), "")
        return inside if text[start] in "rR" else _ESCAPE.sub(_unescape, inside), match.end()
    if match := _NUMBER.match(text, start):
        return _number(match[0]), match.end()
    if match := _NAME.match(text, start):
        if match[0] not in _CONSTANTS:
            raise Unreadable(f"{match[0][:40]} is no literal value; put texts in quotation marks")
        return _CONSTANTS[match[0]], match.end()
    opening = text[start : start + 1]
    if opening == "{":
        return _dictionary(text, start + 1, depth)
    if opening and opening in "[(":
        return _sequence(text, start + 1, "]" if opening == "[" else ")", depth)
    raise Unreadable(f"a value is missing at {_at(text, start)}")


def _sequence(text: str, at: int, closing: str, depth: int) -> tuple[list[Any], int]:
    values = []
    while not _is(text, at, closing):
        value, at = _value(text, at, depth + 1)
        values.append(value)
        at = _separator(text, at, closing)
    return values, _expect(text, at, closing)


def _dictionary(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    while not _is(text, at, "}"):
        key, at = _value(text, at, depth + 1)
        if not isinstance(key, str):
            raise Unreadable("the keys of a dictionary must be texts")
        values[key], at = _value(text, _expect(text, at, ":"), depth + 1)
        at = _separator(text, at, "}")
    return values, _expect(text, at, "}")


def _separator(text: str, at: int, closing: str) -> int:
    return at if _is(text, at, closing) else _expect(text, at, ",")


def _is(text: str, at: int, token: str) -> bool:
    return text.startswith(token, skip_space(text, at))


def _expect(text: str, at: int, token: str) -> int:
    if not _is(text, at, token):
        raise Unreadable(f"expected {token} at {_at(text, skip_space(text, at))}")
    return skip_space(text, at) + len(token)


def _number(written: str) -> float | int:
    try:
        return int(written)
    except ValueError:
        value = float(written)
    if value in (float("inf"), float("-inf")):
        raise Unreadable(f"{written[:40]} is too large")
    return value


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code in _SIMPLE:
        return _SIMPLE[code]
    if code[0] in "xuU" and len(code) > 1:
        number = int(code[1:], 16)
        return chr(number) if number < 0x110000 else match[0]
    return chr(int(code, 8)) if code[0] in "01234567" else match[0]


def _at(text: str, position: int) -> str:
    return f"character {position}: {text[position : position + 20]!r}"
