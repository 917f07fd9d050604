"""Reads the fields of a JSON object, each with its type and range. Every refusal names the field's path. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from producers.gateway.faults import RefusedError


class Fields:
    """Is a JSON object and the path that leads to it. A field that is null counts as absent."""

    def __init__(self, value: object, path: str = "") -> None:
        """Raises RefusedError unless ``value`` is an object."""
        if not isinstance(value, dict):
            raise RefusedError(path, f"must be an object, found {kind(value)}")
        self.values: dict[str, Any] = value
        self.path = path

    def at(self, name: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, problem: str) -> RefusedError:
        """Return the error that a field is wrong."""
        return RefusedError(self.at(name), problem)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def only(
        self,
        known: Collection[str],
        *,
        unused: Collection[str] = (),
        neutral: Mapping[str, tuple[object, ...]] = MappingProxyType({}),
    ) -> None:
        """Refuse fields that have no meaning here. A field that is null or empty counts as absent.

        Args:
            known: the fields that are read elsewhere.
            unused: fields that may have any value and have no effect.
            neutral: fields that are not supported, with the values that ask for nothing.
        """
        for name, value in self.values.items():
            if value is None or name in known or name in unused or value in ([], {}, ""):
                continue
            asks_nothing = neutral.get(name, ())
            # True is not 1 here.
            if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in asks_nothing):
                instead = f" or use {' or '.join(map(repr, asks_nothing))}" if asks_nothing else ""
                raise self.refuse(name, f"is not supported by this gateway; leave it out{instead}")

    def text(self, name: str, default: str | None = None, *, choices: Collection[str] = ()) -> str:
        """Return a text. Raises RefusedError if it is absent and there is no default, or is none of the choices."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.refuse(name, f"must be a text, found {kind(value)}")
        if choices and value not in choices:
            raise self.refuse(name, f"must be {', '.join(sorted(choices))}, found {value[:80]!r}")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """Return a number within the range, both ends included; None if it is absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(name, f"must be a number, found {kind(value)}")
        if not least <= value <= most:
            raise self.refuse(name, f"must be from {least:g} to {most:g}")
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number within the range, both ends included; None if it is absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(name, f"must be a whole number, found {kind(value)}")
        if not least <= value <= most:
            raise self.refuse(name, f"must be from {least} to {most}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, f"must be true or false, found {kind(value)}")
        return value

    def items(self, name: str, most: int) -> list[tuple[Any, str]]:
        """Return the elements of an array and their paths, none if it is absent."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.refuse(name, f"must be an array, found {kind(value)}")
        if len(value) > most:
            raise self.refuse(name, f"has {len(value)} elements, at most {most} are allowed")
        return [(item, f"{self.at(name)}[{index}]") for index, item in enumerate(value)]

    def objects(self, name: str, most: int) -> list[Fields]:
        """Return the objects of an array, none if it is absent."""
        return [Fields(item, path) for item, path in self.items(name, most)]

    def object(self, name: str) -> Fields | None:
        value = self.values.get(name)
        return None if value is None else Fields(value, self.at(name))


def kind(value: object) -> str:
    """Return what JSON calls the type of a value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    names = {dict: "an object", list: "an array", str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), "something else")
