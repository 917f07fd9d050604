"""Checks what makes an event one of its topic, beyond its schema: ids, key and partition. Pure."""

from __future__ import annotations

from functools import lru_cache

from kafka.partitioner.default import murmur2

from rft.errors import DecodeError

SHOWN = 80
"""Characters of a wrong value that an error shows."""


@lru_cache(maxsize=4096)
def key_partition(key: bytes, partitions: int) -> int:
    """Return the partition of a key in a topic with that many: murmur2, as Kafka's own producers compute it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def check_partition(key: bytes | None, partition: int, partitions: int) -> None:
    """Check that an event is in the partition of its key.

    Events of one key in two partitions have no order, and their readers would never meet. A topic that has gained
    partitions is another fault, which roles notice by themselves: an event in one of those passes. Raises DecodeError.
    """
    if partition >= partitions:
        return
    if key is None:
        raise DecodeError("is missing; it decides the partition", field="key")
    expected = key_partition(key, partitions)
    if partition != expected:
        raise DecodeError(
            f"is {partition}, but the key {printable(key)} belongs to partition {expected} of {partitions}. Let the "
            "key decide the partition, by murmur2 (librdkafka: partitioner=murmur2_random; its default is CRC32)",
            field="partition",
        )


def check_key(key: bytes | None, expected: str) -> None:
    """Check that an event's key is the one that its record demands. Raises DecodeError."""
    if key != expected.encode():
        raise DecodeError(f"is {printable(key)}, expected {expected[:SHOWN]!r}", field="key")


def check_group_id(group_id: str) -> None:
    """Check that a group's id can be the beginning of its experiences' ids. Raises DecodeError."""
    if not group_id:
        raise DecodeError("is empty", field="group_id")
    if "/" in group_id:
        raise DecodeError(
            f"{group_id[:SHOWN]!r} contains a slash, which begins the sample in an experience_id", field="group_id"
        )
    check_printable("group_id", group_id)


def check_printable(field: str, value: str) -> None:
    """Check that an id holds no control characters, such as NUL or a line break. Raises DecodeError."""
    if not value.isprintable() and any(ord(one) < 32 or ord(one) == 127 for one in value):
        raise DecodeError(f"{value[:SHOWN]!r} contains a control character", field=field)


def printable(key: bytes | None) -> str:
    """Return a key as errors show it."""
    return "(none)" if key is None else repr(key[:SHOWN].decode("utf-8", "backslashreplace"))
