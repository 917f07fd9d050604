"""Checks whether a schema is FULL_TRANSITIVE compatible with others, with the Avro project's own checker. Pure.

Full: each of two versions can read what the other wrote. Transitive: this holds for every earlier version, not only the
last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType, lookup_writer_field

from schemas.load import Schema

_ADVICE = {
    "reader_field_missing_default_value": (
        'give the new field a "default" (a removed one must have had a default in every version that has it)'
    ),
    "type_mismatch": "keep the type, and add a new field with a default for the new meaning",
    "missing_union_branch": "keep the type as it was (one that may be null must always have been), or add a new field",
    "missing_enum_symbols": "keep all symbols, or use a string",
    "name_mismatch": "keep the name, or keep the old one under aliases",
    "fixed_size_mismatch": "keep the size, or add a new field",
}


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """One point at which two versions are incompatible."""

    rule: str
    """Its name in ``avro.compatibility``, e.g. ``type_mismatch``."""
    message: str
    path: str
    """JSON path in the reader's schema, e.g. ``/fields/3/type``."""
    field: str
    """Dotted name of the field; empty for the record itself."""
    reader: str
    """Name of the version that cannot read."""
    writer: str
    """Name of the version that wrote."""

    @property
    def advice(self) -> str:
        """What to do about it."""
        return _ADVICE.get(self.rule, "leave it as it was")

    def __str__(self) -> str:
        where = f"{self.path} (field {self.field})" if self.field else self.path
        return f"{where}: {self.rule}: {self.message}; {self.reader} cannot read what {self.writer} wrote"


def full_transitive(candidate: Schema, name: str, versions: Mapping[str, Schema]) -> list[Incompatibility]:
    """Return all incompatibilities of ``candidate`` with ``versions`` (schemas by name).

    Args:
        name: The candidate's name in the result.
    """
    found: list[Incompatibility] = []
    for other, version in versions.items():
        found += unreadable(candidate, version, reader_name=name, writer_name=other)
        found += unreadable(version, candidate, reader_name=other, writer_name=name)
    return found


def unreadable(reader: Schema, writer: Schema, *, reader_name: str, writer_name: str) -> list[Incompatibility]:
    """Return the incompatibilities that keep ``reader`` from reading what ``writer`` wrote.

    Raises:
        avro.errors.AvroException: A schema is invalid, e.g. a default is not of its field's type.
    """
    checker = _Checker()
    checker.get_compatibility(avro.schema.parse(reader.text), avro.schema.parse(writer.text))
    tree = json.loads(reader.text)
    return [
        Incompatibility(rule, message, path, _field_at(tree, path), reader_name, writer_name)
        for rule, message, path in checker.found
    ]


class _Checker(ReaderWriterCompatibilityChecker):  # type: ignore[misc]  # avro has no types
    """Keeps rule, message and path together: the checker's own result has a separate set of each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []

    def calculate_compatibility(self, reader: Any, writer: Any, location: list[str]) -> Any:
        before = len(self.found)
        result = super().calculate_compatibility(reader, writer, location)
        if result.compatibility is not SchemaCompatibilityType.incompatible:
            del self.found[before:]  # from branches of a union that do not fit, while another does
        elif "union" in (reader.type, writer.type) or len(self.found) == before:
            rules = dict.fromkeys(rule.value for rule in result.incompatibilities)
            self.found[before:] = [(", ".join(rules), "; ".join(sorted(result.messages)), _path(location))]
        return result

    def check_reader_writer_record_fields(self, reader: Any, writer: Any, location: list[str]) -> Any:
        if reader.name != writer.name and writer.fullname not in (reader.props.get("aliases") or ()):
            self.found.append(("name_mismatch", f"expected {writer.fullname}", _path([*location, "name"])))
        for index, field in enumerate(reader.fields):
            if lookup_writer_field(writer_schema=writer, reader_field=field) is None and not field.has_default:
                path = _path([*location, "fields", str(index)])
                self.found.append(("reader_field_missing_default_value", f"{field.name} has no default", path))
        return super().check_reader_writer_record_fields(reader, writer, location)


def _path(location: list[str]) -> str:
    return "/" + "/".join(part for part in location if part != "/")


def _field_at(node: Any, path: str) -> str:
    """Return the names of the fields along a JSON path."""
    names = []
    for part in filter(None, path.split("/")):
        node = node[int(part)] if isinstance(node, list) else node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and "name" in node and part.isdigit():
            names.append(node["name"])
    return ".".join(names)
