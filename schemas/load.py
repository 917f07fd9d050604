"""Loads the schemas of ``avsc/`` with their fingerprints. ``avsc/history/`` has every version ever written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.errors import DecodeError

NAMESPACE = "stream_rft"
NAMES = (
    "Task",
    "Experience",
    "Reward",
    "ScoredExperience",
    "WeightVersion",
    "Member",
    "TrainingStep",
    "Waiting",
    "Turn",
    "Session",
)
"""Unqualified names of the records of the topics."""
STORED = "ArchivedEvent"
"""The record of archive files."""
FOLDER = Path(__file__).with_name("avsc")
HISTORY = FOLDER / "history"
"""Holds ``<Record>.v<number>.avsc``, with nested records written out. `rft schemas freeze` writes them; they never
change."""


@dataclass(frozen=True)
class Schema:
    """One parsed schema."""

    name: str
    """Unqualified name of the record."""
    text: str
    """Self-contained JSON: nested records are written out where they are first used."""
    parsed: Any
    """The schema in fastavro's form, with full names."""
    reading: Any
    """The same for reading what other schemas wrote: defaults of bytes fields are bytes. It is no JSON."""
    named: Mapping[str, Any]
    """Definitions of all its named types, by full name."""
    canonical: str
    """Its parsing canonical form, a short text with everything that a reader needs from a writer's schema."""
    fingerprint: bytes
    """CRC-64-AVRO of ``canonical``, 8 bytes little-endian. Docs and defaults don't change it."""


@cache
def current(name: str) -> Schema:
    """Return the schema that this release writes for record ``name``: one of :data:`NAMES`, or a record nested in
    it."""
    return build(_read(name))


@cache
def history(name: str) -> Mapping[int, Schema]:
    """Return every version of record ``name`` that was ever written, by number from 1, oldest first."""
    prefix = f"{name}.v"
    paths = {int(path.stem.removeprefix(prefix)): path for path in HISTORY.glob(f"{prefix}*.avsc")}
    return {number: build(json.loads(paths[number].read_text(encoding="utf-8"))) for number in sorted(paths)}


@cache
def by_fingerprint() -> dict[bytes, Schema]:
    """Return all schemas that this release knows, by fingerprint: those of the history and the current ones."""
    known = [schema for name in NAMES for schema in (*history(name).values(), current(name))]
    return {schema.fingerprint: schema for schema in known}


def build(raw: Any) -> Schema:
    """Return a schema from its JSON. If it names a record of ours without defining it, the current one is used.

    Raises fastavro's SchemaParseException, KeyError or TypeError if it is not a schema.
    """
    return _build(_expand(raw, set()))


@lru_cache(maxsize=256)
def foreign(text: str) -> Schema:
    """Parse another writer's schema for one of our records, e.g. an earlier or later version from a registry.

    Logical types are dropped, because our records hold plain numbers. Raises DecodeError if the text is not a schema,
    or not of one of our records.
    """
    try:
        schema = _build(_plain(json.loads(text)))
    except (ValueError, KeyError, TypeError, RecursionError, fastavro.schema.SchemaParseException) as error:
        raise DecodeError(f"the writer's schema cannot be parsed: {error}") from error
    if schema.name not in NAMES:
        raise DecodeError(f"the writer's schema is for {schema.name!r}; known records are {', '.join(NAMES)}")
    return schema


def _build(raw: Any) -> Schema:
    full_name = fastavro.schema.fullname(raw) if isinstance(raw, dict) and "name" in raw else str(raw)
    prefix, _, short = full_name.rpartition(".")
    named: dict[str, Any] = {}
    parsed = fastavro.parse_schema(raw, named_schemas=named)
    reading = deepcopy(parsed)
    _make_bytes_defaults(reading)
    canonical = to_parsing_canonical_form(raw)
    return Schema(
        name=short if prefix == NAMESPACE else full_name,
        text=json.dumps(raw),
        parsed=parsed,
        reading=reading,
        named=named,
        canonical=canonical,
        fingerprint=bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")),
    )


def _make_bytes_defaults(node: Any) -> None:
    """Turn the defaults of bytes fields into bytes: in JSON they are texts, and fastavro would return those."""
    if isinstance(node, list):
        for branch in node:
            _make_bytes_defaults(branch)
    if isinstance(node, dict):
        for field in node.get("fields", ()):
            if field["type"] == "bytes" and isinstance(field.get("default"), str):
                field["default"] = field["default"].encode("latin-1")
            _make_bytes_defaults(field["type"])
        for inner in ("items", "values", "type"):
            _make_bytes_defaults(node.get(inner))


def _read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.avsc").read_text(encoding="utf-8"))


def _expand(node: Any, seen: set[str]) -> Any:
    """Replace the first mention of each nested record with its definition."""
    if isinstance(node, str):
        prefix, _, short = node.rpartition(".")
        if prefix != NAMESPACE or short in seen or not (FOLDER / f"{short}.avsc").is_file():
            return node
        return _expand(_read(short), seen)
    if isinstance(node, list):
        return [_expand(branch, seen) for branch in node]
    if node.get("type") == "record":
        seen.add(node["name"])
        return {**node, "fields": [{**f, "type": _expand(f["type"], seen)} for f in node["fields"]]}
    return {key: _expand(value, seen) if key in ("items", "values") else value for key, value in node.items()}


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(child) for child in node]
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key != "logicalType"}
    return node
