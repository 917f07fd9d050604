"""Lets kafka-python write nulls that its ``send`` refuses: of a header, and of a value without a key.

Kafka's format has them and other clients write them, so a dead letter must keep them. ``send`` demands bytes and counts
their lengths. Therefore :data:`NULL` stands for a null until the record is written, which is where kafka-python knows
nulls. This file holds all that depends on kafka-python's private parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka.producer import record_accumulator
from kafka.record import MemoryRecordsBuilder
from kafka.serializer import Serializer

from schemas.framing import Headers


class _Null(bytes):
    """Empty bytes that are distinguished from others by identity."""


NULL = _Null()
"""Stands for a null in the arguments of ``KafkaProducer.send``."""


def mark_nulls(headers: Headers) -> list[tuple[str, bytes]]:
    """Return headers that ``send`` accepts."""
    return [(name, NULL if value is None else value) for name, value in headers]


class NullValueSerializer(Serializer):
    """Writes a value of :data:`NULL` as null, and other values as they are."""

    def serialize(self, topic: str, headers: Iterable[Any], data: bytes | None) -> bytes | None:
        return None if data is NULL else data


class _RecordsBuilder(MemoryRecordsBuilder):
    """Writes a header of :data:`NULL` as null."""

    __slots__ = ()

    def append(self, timestamp: Any, key: Any, value: Any, headers: Any = None) -> Any:
        if headers and any(header is NULL for _, header in headers):
            headers = [(name, None if header is NULL else header) for name, header in headers]
        return super().append(timestamp, key, value, headers)


record_accumulator.MemoryRecordsBuilder = _RecordsBuilder
