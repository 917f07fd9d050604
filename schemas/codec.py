"""Encodes records as the bytes of a Kafka value, and decodes them.

:mod:`schemas.framing` defines how a value names the schema that it was written with.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, TypeVar, overload

import fastavro

from schemas.errors import DecodeError, EncodeError
from schemas.events import RECORDS, Record
from schemas.framing import Headers, SchemaLookup, frame, writer_of
from schemas.invalid_field import find_invalid_field
from schemas.load import Schema, current
from schemas.walk import verify
from schemas.wire import from_wire, to_wire

R = TypeVar("R", bound=Record)

DEFAULT_MAX_BYTES = 4 * 1024 * 1024
"""The default of ``log.max_message_bytes``."""

_KINDS = {kind.__name__: kind for kind in RECORDS}


def encode(record: Record, schema_id: int | None = None) -> bytes:
    """Return the record in single-object encoding, or in Confluent's if a registry knows its schema by ``schema_id``.

    Raises EncodeError that names the field that cannot be written.
    """
    schema = current(type(record).__name__)
    wire = to_wire(record)
    buffer = BytesIO()
    buffer.write(frame(schema.name, schema_id))
    try:
        fastavro.schemaless_writer(buffer, schema.parsed, wire)
    except Exception as error:
        path, fault = find_invalid_field(schema.parsed, schema.named, wire) or (schema.name, str(error))
        raise EncodeError(fault, path) from error
    return buffer.getvalue()


@overload
def decode(
    data: bytes,
    expect: type[R],
    *,
    max_bytes: int = ...,
    writer_schemas: SchemaLookup | None = ...,
    headers: Headers = ...,
) -> R: ...
@overload
def decode(
    data: bytes,
    expect: None = ...,
    *,
    max_bytes: int = ...,
    writer_schemas: SchemaLookup | None = ...,
    headers: Headers = ...,
) -> Record: ...
def decode(
    data: bytes,
    expect: type[Record] | None = None,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    writer_schemas: SchemaLookup | None = None,
    headers: Headers = (),
) -> Record:
    """Return the record in ``data``. Its schema must be known to us, be in ``headers`` or be found by
    ``writer_schemas``.

    Raises DecodeError if the data is too long, has an unknown frame or schema, holds a record other than ``expect``,
    has missing or trailing bytes, NaN or infinity, or packed arrays that don't fit together. If a field is invalid, the
    error names it.
    """
    if not data:
        raise DecodeError("the event has no value")
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes; at most {max_bytes} are accepted (log.max_message_bytes)")
    writer, start = writer_of(data, headers, writer_schemas)
    if expect is not None and writer.name != expect.__name__:
        raise DecodeError(f"holds {writer.name}, expected {expect.__name__}")
    reader = current(writer.name)
    read = _read_own if writer.fingerprint == reader.fingerprint else _read_foreign
    return from_wire(_KINDS[writer.name], read(data, start, writer, reader))


def _read_own(data: bytes, start: int, writer: Schema, reader: Schema) -> dict[str, Any]:
    buffer = BytesIO(data)
    buffer.seek(start)
    try:
        wire: dict[str, Any] = fastavro.schemaless_reader(buffer, writer.parsed, None)
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
        wire: dict[str, Any] = fastavro.schemaless_reader(buffer, writer.parsed, reader.reading)
    except Exception as error:
        raise DecodeError(f"the writer's schema does not resolve to ours: {error}") from error
    found = find_invalid_field(reader.parsed, reader.named, wire)
    if found:
        raise DecodeError(found[1], found[0])
    return wire
