"""Defines the form in which readers hand out messages of the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, overload

from rft.errors import DecodeError
from rft.log.coordinates import LogPosition
from schemas.codec import DEFAULT_MAX_BYTES, decode
from schemas.events import Record
from schemas.framing import SchemaLookup

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Event:
    """One message of the log."""

    entity: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    """None is a tombstone."""
    headers: tuple[tuple[str, bytes | None], ...]
    max_bytes: int = DEFAULT_MAX_BYTES
    """A larger value is not a valid record."""
    writer_schemas: SchemaLookup | None = field(default=None, repr=False, compare=False)
    """Finds schemas that the value names by a registry's id."""

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.partition, self.offset)

    @overload
    def record(self) -> Record: ...
    @overload
    def record(self, expect: type[R]) -> R: ...
    def record(self, expect: type[Record] | None = None) -> Record:
        """Decode the value and check that it is an ``expect``, if given.

        Raises DecodeError if it is malformed, RegistryError if its schema is in a registry that does not answer now.
        """
        if self.value is None:
            raise DecodeError("the message is a tombstone (no value)")
        return decode(
            self.value, expect, max_bytes=self.max_bytes, writer_schemas=self.writer_schemas, headers=self.headers
        )
