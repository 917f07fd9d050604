"""Reads events whose header names are no UTF-8, which kafka-python refuses together with all events after them.

Kafka takes any bytes as a header's name, and a broker does not look at them. Such a name is read with backslashes for
the bytes that are no UTF-8 (``caf\\xe9``). This file holds all that depends on kafka-python's private parts for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka.errors import CorruptRecordError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint


class _Fields:
    """Reads the fields of one record after the other."""

    def __init__(self, data: Any, at: int) -> None:
        self._data = data
        self.at = at

    def number(self) -> int:
        number, self.at = decode_varint(self._data, self.at)
        return int(number)

    def data(self) -> bytes | None:
        size = self.number()
        if size < 0:
            return None
        begin, self.at = self.at, self.at + size
        return bytes(self._data[begin : self.at])

    def name(self) -> str:
        return (self.data() or b"").decode("utf-8", "backslashreplace")


class _Batch(DefaultRecordBatch):
    _pos: int

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            return self._read_any_names()

    def _read_any_names(self) -> Any:
        fields = _Fields(self._buffer, self._pos)
        size = fields.number()
        end = fields.at + size
        fields.number()  # attributes, which are not used
        timestamp = self.first_timestamp + fields.number()
        if self.timestamp_type == self.LOG_APPEND_TIME:
            timestamp = self.max_timestamp
        offset = self.base_offset + fields.number()
        key, value = fields.data(), fields.data()
        headers = [(fields.name(), fields.data()) for _ in range(fields.number())]
        if fields.at != end:
            raise CorruptRecordError(f"a record of {size} bytes ends after {fields.at - end + size}")
        self._pos = end
        return DefaultRecord(size, offset, timestamp, self.timestamp_type, key, value, headers)


def read_any_header_names() -> None:
    """Let all consumers of kafka-python in this process read such events."""
    memory_records.DefaultRecordBatch = _Batch


def read_batch(data: bytes | memoryview) -> Iterator[Any]:
    """Return the records of one batch in Kafka's format 2, with kafka-python's attributes."""
    return iter(_Batch(data))
