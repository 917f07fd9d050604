"""Knows which finished events a committed offset leaves behind it, and writes them beside the offset. Pure.

A committed offset may lie between the events of a group that is already released: the event at the offset belongs to
another group, which is still open. Whoever reads from there on gets only the rest of the released group and would wait
for its beginning. So the offsets of that rest are committed as metadata with the offset.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator

MAX_METADATA = 3500
"""Characters. Kafka's brokers accept 4096 bytes by default (``offset.metadata.max.bytes``)."""
PREFIX = "rft1:"
"""Tells our metadata, in this format, from what others write there."""


class DividedGroups:
    """Holds one partition's finished events that a committed offset may separate from the beginning of their group."""

    def __init__(self, finished: Iterable[int] = ()) -> None:
        """``finished`` are the offsets that were read from the metadata of the committed offset."""
        self._groups: list[tuple[int, ...]] = []
        """Offsets of each released group, ascending."""
        self._alone = set(finished)
        """Offsets whose group's beginning is not known here."""

    def holds(self, offset: int) -> bool:
        """Return whether the event was finished when it came: read from metadata, or noted by ``repeated``."""
        return offset in self._alone

    def released(self, offsets: Collection[int]) -> None:
        """Note that a group was released whose events are at these offsets."""
        if len(offsets) > 1:
            self._groups.append(tuple(sorted(offsets)))

    def repeated(self, offset: int) -> None:
        """Note a finished event whose group had been released before it came."""
        self._alone.add(offset)

    def behind(self, committed: int) -> list[tuple[int, ...]]:
        """Return the finished offsets from ``committed`` on whose groups are released and began before it, by group.

        Forgets what lies before ``committed``: committed offsets only rise.
        """
        self._alone = {offset for offset in self._alone if offset >= committed}
        self._groups = [group for group in self._groups if group[-1] >= committed]
        divided = [tuple(at for at in group if at >= committed) for group in self._groups if group[0] < committed]
        return divided + [(offset,) for offset in sorted(self._alone)]


def encode_offsets(committed: int, groups: Iterable[tuple[int, ...]], limit: int = MAX_METADATA) -> str:
    """Return metadata that holds the offsets of these groups; empty if there are none.

    A group is held as a whole or not at all. If they do not fit within ``limit`` characters, the longest ones are left
    out: their rest waits for the group's deadline.
    """
    shortest_first = sorted(groups, key=len)
    while shortest_first:
        text = _encode(committed, sorted(offset for group in shortest_first for offset in group))
        if len(text) <= limit:
            return text
        shortest_first = shortest_first[: len(shortest_first) * 9 // 10]
    return ""


def decode_offsets(committed: int, metadata: str | None) -> frozenset[int]:
    """Return the offsets that metadata holds; none if it is not ours or is damaged."""
    if not metadata or not metadata.startswith(PREFIX):
        return frozenset()
    try:
        steps = list(_numbers(base64.b64decode(metadata[len(PREFIX) :], validate=True)))
    except (ValueError, binascii.Error):
        return frozenset()
    offsets, last = set(), committed
    for step in steps:
        last += step
        offsets.add(last)
    return frozenset(offsets)


def _encode(committed: int, offsets: Iterable[int]) -> str:
    """Write the distances between neighbors as variable-length integers of 7 bits a byte (LEB128), in base64."""
    data, last = bytearray(), committed
    for offset in offsets:
        rest, last = offset - last, offset
        while rest > 0x7F:
            data.append(rest & 0x7F | 0x80)
            rest >>= 7
        data.append(rest)
    return PREFIX + base64.b64encode(data).decode() if data else ""


def _numbers(data: bytes) -> Iterator[int]:
    """Yield the integers that ``_encode`` wrote. Raises ValueError if the last one is cut."""
    number, shift = 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number, shift = 0, 0
    if shift:
        raise ValueError("the last integer is cut")
