"""Records to the bytes of a Kafka value and back.

Written: Avro single-object encoding, ``C3 01`` + 8-byte CRC-64-AVRO of the writer's schema (little-endian) + body.
Read: that, and Confluent framing, ``00`` + 4-byte schema id (big-endian) + body.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar, overload

import fastavro

from schemas.blame import culprit
from schemas.errors import DecodeError, EncodeError
from schemas.events import RECORDS, Record
from schemas.load import Schema, by_fingerprint, current, foreign
from schemas.walk import verify
from schemas.wire import from_wire, to_wire

R = TypeVar("R", bound=Record)

SchemaLookup = Callable[[int], str | None]
"""The JSON of the schema with a Confluent id, None when there is none. What it raises is passed on as it is."""

DEFAULT_MAX_BYTES = 4 * 1024 * 1024
"""Same as the default of ``log.max_message_bytes``."""

SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"

_KINDS = {kind.__name__: kind for kind in RECORDS}


def encode(record: Record) -> bytes:
    """The record in single-object encoding. Raises EncodeError naming the field that cannot be written."""
    schema = current(type(record).__name__)
    wire = to_wire(record)
    buffer = BytesIO()
    buffer.write(SINGLE_OBJECT + schema.fingerprint)
    try:
        fastavro.schemaless_writer(buffer, schema.parsed, wire)
    except Exception as error:
        path, fault = culprit(schema.parsed, schema.named, wire) or (schema.name, str(error))
        raise EncodeError(fault, path) from error
    return buffer.getvalue()


@overload
def decode(data: bytes, expect: type[R], *, max_bytes: int = ..., writer_schemas: SchemaLookup | None = ...) -> R: ...
@overload
def decode(
    data: bytes, expect: None = ..., *, max_bytes: int = ..., writer_schemas: SchemaLookup | None = ...
) -> Record: ...
def decode(
    data: bytes,
    expect: type[Record] | None = None,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    writer_schemas: SchemaLookup | None = None,
) -> Record:
    """The record in ``data``, written with any schema that we know or that ``writer_schemas`` finds.

    Raises DecodeError, naming the field where one is at fault: too long, unknown frame or schema, a record other
    than ``expect``, truncated or trailing bytes, NaN or infinity, packed arrays that don't fit together.
    """
    if not data:
        raise DecodeError("the event has no value")
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes; at most {max_bytes} are accepted (log.max_message_bytes)")
    writer, start = _frame(data, writer_schemas)
    if expect is not None and writer.name != expect.__name__:
        raise DecodeError(f"holds {writer.name}, expected {expect.__name__}")
    reader = current(writer.name)
    read = _read_own if writer.fingerprint == reader.fingerprint else _read_foreign
    return from_wire(_KINDS[writer.name], read(data, start, writer, reader))


def _frame(data: bytes, writer_schemas: SchemaLookup | None) -> tuple[Schema, int]:
    """The writer's schema and where the body starts."""
    if data[:2] == SINGLE_OBJECT:
        if len(data) < 10:
            raise DecodeError("ends within the schema fingerprint")
        schema = by_fingerprint().get(data[2:10])
        if schema is None:
            raise DecodeError(f"unknown schema fingerprint {data[2:10].hex()}")
        return schema, 10
    if data[:1] == CONFLUENT:
        if len(data) < 5:
            raise DecodeError("ends within the schema id")
        number = int.from_bytes(data[1:5], "big")
        if writer_schemas is None:
            raise DecodeError(f"names schema id {number} of a registry, and no registry is configured")
        text = writer_schemas(number)
        if text is None:
            raise DecodeError(f"schema id {number} is unknown to the registry")
        return foreign(text), 5
    raise DecodeError(f"starts with {data[:2].hex()}; expected c301 (Avro single-object) or 00 (Confluent)")


def _read_own(data: bytes, start: int, writer: Schema, reader: Schema) -> dict[str, Any]:
    buffer = BytesIO(data)
    buffer.seek(start)
    try:
        wire = fastavro.schemaless_reader(buffer, writer.parsed, None)
    except Exception as error:
        verify(writer.parsed, writer.named, data, start)
        raise DecodeError(f"cannot be read: {error}") from error
    if buffer.tell() != len(data):
        raise DecodeError(f"{len(data) - buffer.tell()} trailing bytes after the end of the record")
    return wire


def _read_foreign(data: bytes, start: int, writer: Schema, reader: Schema) -> dict[str, Any]:
    verify(writer.parsed, writer.named, data, start)
    buffer = BytesIO(data)
    buffer.seek(start)
    try:
        wire = fastavro.schemaless_reader(buffer, writer.parsed, reader.parsed)
    except Exception as error:
        raise DecodeError(f"the writer's schema does not resolve to ours: {error}") from error
    found = culprit(reader.parsed, reader.named, wire)
    if found:
        raise DecodeError(found[1], found[0])
    return wire
