"""One contract for reading the log's events again: from the live log or from an archive of it.

What a reader asks for and the log does not hold is a MissingRangeError, never a silent jump.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Protocol, Self

from rft.log.reader import Event

Offsets = Mapping[int, int]
"""Offset by partition."""


class LogView(Protocol):
    """A log as it is now or was; offsets are those of the topics it was written to."""

    @property
    def name(self) -> str:
        """Where the events come from, for people."""

    def entities(self) -> tuple[str, ...]:
        """The topics it holds."""

    def begin_offsets(self, entity: str) -> dict[int, int]:
        """The first offset it holds of each partition."""

    def end_offsets(self, entity: str) -> dict[int, int]:
        """The offset after the last event of each partition."""

    def read(self, entity: str, *, start: Offsets | None = None, end: Offsets | None = None) -> Iterator[Event]:
        """Events from ``start`` to ``end`` (exclusive), each partition in order of offsets.

        Between partitions the event with the lowest (timestamp, partition, offset) comes first, so the same range is
        always read in the same order. Partitions that ``start`` or ``end`` don't name are read from their beginning
        or to their present end.

        Raises:
            MissingRangeError: Some of the range is not there.
        """

    def fetch(self, entity: str, partition: int, offset: int) -> Event:
        """One event. MissingRangeError if it is not there."""

    def close(self) -> None:
        """Let go of connections and files."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def merge(partitions: list[Iterator[Event]]) -> Iterator[Event]:
    """Interleave partitions, each in its own order, by (timestamp, partition, offset) of what comes next in each."""
    return heapq.merge(*partitions, key=_moment)


def _moment(event: Event) -> tuple[int, int, int]:
    return event.timestamp_ms, event.partition, event.offset
