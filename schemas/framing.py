"""Finds the schema that an event was written with, from the first bytes of its value or from a header.

=========================  ====================================================================================
value starts with C3 01    Avro single-object encoding: 8-byte CRC-64-AVRO of the schema (little-endian), body
value starts with 00       Confluent: 4-byte schema id (big-endian), body
header __value_schema_id   Confluent, newer: 01 and a 16-byte GUID, or 00 and a 4-byte id; the value is the body alone
header rft.schema          with single-object encoding: the writer's schema (parsing canonical form, zlib)
=========================  ====================================================================================

A release knows earlier schemas, but not later ones. If a record's schema is not its first version, its events carry the
schema in ``rft.schema``, so that earlier releases can read them without a registry.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from uuid import UUID

from schemas.errors import DecodeError
from schemas.load import Schema, by_fingerprint, current, foreign, history

Headers = Sequence[tuple[str, bytes | None]]
SchemaId = int | str
"""A registry's id of a schema: Confluent's number, or the GUID in text form."""
SchemaLookup = Callable[[SchemaId], str | None]
"""Returns the JSON of the schema with that id, None if there is none. Its exceptions are not caught."""

SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"
REGISTRY_HEADER = "__value_schema_id"
SCHEMA_HEADER = "rft.schema"
_MAX_SCHEMA_BYTES = 256 * 1024
"""Limit on an inflated ``rft.schema``; ours have 2 KB."""


def frame(record_name: str, schema_id: int | None) -> bytes:
    """Return the bytes before the body: Confluent's frame for a ``schema_id``, otherwise single-object encoding."""
    if schema_id is not None:
        return CONFLUENT + schema_id.to_bytes(4, "big")
    return SINGLE_OBJECT + current(record_name).fingerprint


@cache
def schema_headers(record_name: str) -> tuple[tuple[str, bytes], ...]:
    """Return the header that lets earlier releases read what we write; empty while a record has its first schema."""
    schema, first = current(record_name), history(record_name).get(1)
    if first is None or schema.fingerprint == first.fingerprint:
        return ()
    return ((SCHEMA_HEADER, zlib.compress(schema.canonical.encode(), 9)),)


def registry_id(data: bytes, headers: Headers = ()) -> SchemaId | None:
    """Return the schema id to ask a registry for, None if ``data`` can be read without a registry.

    Raises DecodeError if the frame is cut short or its header is invalid.
    """
    for name, value in headers:
        if name == REGISTRY_HEADER and value is not None:
            return _header_id(value)
    if data[:1] != CONFLUENT:
        return None
    if len(data) < 5:
        raise DecodeError("ends within the schema id")
    return int.from_bytes(data[1:5], "big")


def writer_of(data: bytes, headers: Headers, lookup: SchemaLookup | None) -> tuple[Schema, int]:
    """Return the writer's schema and the start of the body. Raises DecodeError, and what ``lookup`` raises."""
    number = registry_id(data, headers)
    if number is not None:
        in_header = any(name == REGISTRY_HEADER and value is not None for name, value in headers)
        return _registered(number, lookup), 0 if in_header else 5
    if data[:2] != SINGLE_OBJECT:
        raise DecodeError(f"starts with {data[:2].hex()}; expected c301 (Avro single-object) or 00 (Confluent)")
    if len(data) < 10:
        raise DecodeError("ends within the schema fingerprint")
    fingerprint = data[2:10]
    return by_fingerprint().get(fingerprint) or _carried(fingerprint, headers), 10


def _registered(number: SchemaId, lookup: SchemaLookup | None) -> Schema:
    if lookup is None:
        raise DecodeError(f"names schema id {number} of a registry, but no registry is configured: set registry.url")
    text = lookup(number)
    if text is None:
        raise DecodeError(f"schema id {number} is unknown to the registry")
    return foreign(text)


def _header_id(value: bytes) -> SchemaId:
    if value[:1] == b"\x01" and len(value) == 17:
        return str(UUID(bytes=value[1:]))
    if value[:1] == CONFLUENT and len(value) == 5:
        return int.from_bytes(value[1:], "big")
    raise DecodeError(f"header {REGISTRY_HEADER} is {value[:20].hex()}; expected 01 and a GUID, or 00 and a 4-byte id")


def _carried(fingerprint: bytes, headers: Headers) -> Schema:
    packed = next((value for name, value in headers if name == SCHEMA_HEADER and value is not None), None)
    if packed is None:
        raise DecodeError(f"unknown schema fingerprint {fingerprint.hex()}, and no header {SCHEMA_HEADER}")
    try:
        text = zlib.decompressobj().decompress(packed, _MAX_SCHEMA_BYTES).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise DecodeError(f"header {SCHEMA_HEADER} cannot be unpacked: {error}") from None
    schema = foreign(text)
    if schema.fingerprint != fingerprint:
        raise DecodeError(f"header {SCHEMA_HEADER} holds another schema than the one with {fingerprint.hex()}")
    return schema
