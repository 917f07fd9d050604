"""Collects what a parser finds in a text: calls, faults, and the text around them (pure)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from rft.texts import utf8_fault
from rft.workflows.messages import Reply, ToolCall

MAX_CALLS = 64
"""Calls, broken ones included, that are read in one turn. This bounds the time that a reply may take, too: an error of
Python's JSON decoder takes time that grows with the text before it."""
MAX_NAME = 256
OWN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""An id that the model itself may give a call (Mistral)."""
_SPACE = re.compile(r"\s*")


class Unreadable(ValueError):  # noqa: N818 - it is no error of the program
    """A call cannot be read. The message tells the model why."""


class Findings:
    """What was found in one text so far."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._calls: list[ToolCall] = []
        self._faults: list[str] = []
        self._outside: list[str] = []

    @property
    def empty(self) -> bool:
        """Whether neither a call nor a fault was found."""
        return not self._calls and not self._faults

    @property
    def full(self) -> bool:
        """Whether nothing more is read."""
        return len(self._calls) + len(self._faults) >= MAX_CALLS

    def outside(self, part: str) -> None:
        """Note a part of the text that belongs to no call."""
        self._outside.append(part)

    def plain(self, text: str) -> None:
        """Note that ``text`` is all there is."""
        self._outside = [text]

    def call(self, value: object, *, arguments_keys: tuple[str, ...] = ("arguments", "parameters")) -> None:
        """Add the call that a JSON value describes, or the fault that it has."""
        try:
            if not isinstance(value, dict):
                raise Unreadable('it must be a JSON object with "name" and "arguments"')
            nested = value.get("function")
            if isinstance(nested, dict):
                value = {**nested, "id": value.get("id")}
            key = next((key for key in arguments_keys if key in value), arguments_keys[0])
            self.named(value.get("name"), value.get(key, {}), value.get("id"))
        except Unreadable as error:
            self.fault(str(error))

    def named(self, name: object, arguments: object, own_id: object = None) -> None:
        """Add a call of ``name``, or the fault that name or arguments have."""
        if self.full:
            return
        try:
            self._add(name, arguments, own_id)
        except Unreadable as error:
            self.fault(str(error))

    def fault(self, reason: str) -> None:
        """Add a call that cannot be read."""
        if not self.full:
            self._faults.append(f"The tool call could not be read: {reason}.")

    def reply(self, thinking: str) -> Reply:
        """Return what was found."""
        faults = (
            [*self._faults, f"Of a turn, only the first {MAX_CALLS} calls are read."] if self.full else self._faults
        )
        return Reply("".join(self._outside).strip(), thinking, tuple(self._calls), tuple(faults))

    def _add(self, name: object, arguments: object, own_id: object) -> None:
        if not isinstance(name, str) or not name.strip():
            raise Unreadable('"name" must be the name of a tool')
        if len(name) > MAX_NAME:
            raise Unreadable(f'"name" is longer than {MAX_NAME} characters')
        if isinstance(arguments, str):  # some models write the object as a text
            arguments, _ = read_json(arguments, 0)
        if not isinstance(arguments, dict):
            raise Unreadable('"arguments" must be a JSON object')
        if fault := utf8_fault(name) or _fault_inside(arguments):
            raise Unreadable(fault)
        ids = {call.id for call in self._calls}
        kept = isinstance(own_id, str) and OWN_ID.fullmatch(own_id) and own_id not in ids
        call_id = str(own_id) if kept else self._new_id()
        self._calls.append(ToolCall(call_id, name.strip(), arguments))

    def _new_id(self) -> str:
        """Return an id that follows from the text: nine letters and digits, as Mistral's templates demand."""
        return hashlib.blake2b(f"{len(self._calls)}/{self._text}".encode("utf-8", "replace")).hexdigest()[:9]


def read_json(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that begins at ``start``, after white space, and where it ends. Raises Unreadable.

    It takes line breaks inside of strings, which models write, but no NaN and no number too large for a float.
    """
    try:
        return _DECODER.raw_decode(text, skip_space(text, start))
    except json.JSONDecodeError as error:
        raise Unreadable(f"{error.msg} at character {error.pos - start} of the JSON") from None
    except RecursionError:
        raise Unreadable("the JSON is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"the JSON holds a wrong number: {error}") from None


def skip_space(text: str, start: int) -> int:
    """Return where the white space that begins at ``start`` ends."""
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _fault_inside(arguments: dict[str, Any]) -> str | None:
    try:
        return utf8_fault(json.dumps(arguments, ensure_ascii=False))
    except RecursionError:
        return "the arguments are nested too deeply"


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant, strict=False)
