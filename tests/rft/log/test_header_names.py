"""Events with header names that are no UTF-8 are read by both libraries, in every codec, and all others as before."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.record import MemoryRecords, MemoryRecordsBuilder

from consumers.processors.faust_backend import private
from rft.log.header_names import read_any_header_names


class Latin(str):
    """A name that is written in Latin-1."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return str.encode(self, "latin-1")


EVENTS: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (b"k", b"first", [("plain", b"1")]),
    (b"k", b"x" * 5000, [(Latin("caf\xe9"), b"2"), ("null", None)]),
    (None, None, [("\u00e9", b"\xff")]),
    (b"k", b"", [(Latin("\xff"), None), (Latin("caf\xe9"), b"3"), ("", b"4")]),
    (b"k", b"last", []),
]
READ_NAMES = [["plain"], ["caf\\xe9", "null"], ["\u00e9"], ["\\xff", "caf\\xe9", ""], []]


def batches(codec: int, count: int = 3) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=10**6)
    for number, (key, value, headers) in enumerate(EVENTS):
        builder.append(1000 + number, key, value, headers)
    builder.close()
    return bytes(builder.buffer()) * count


def plain(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, [tuple(header) for header in record.headers]


@pytest.mark.parametrize("codec", range(5))
def test_every_event_is_read_by_both_libraries(codec: int) -> None:
    read_any_header_names()
    data = batches(codec)
    by_kafka_python = [plain(record) for batch in MemoryRecords(data) for record in batch]
    records, by_aiokafka = private._Records(data), []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        by_aiokafka += [plain(record) for record in batch]
    expected = [
        (number, 1000 + number, key, value, list(zip(names, (data for _, data in headers), strict=True)))
        for number, ((key, value, headers), names) in enumerate(zip(EVENTS, READ_NAMES, strict=True))
    ]
    assert by_kafka_python == expected * 3
    assert by_aiokafka == expected * 3
