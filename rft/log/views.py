"""Defines the contract for reading the log's events again: from the live log or from an archive of it.

Where a log does not hold what a reader asks for, it raises MissingRangeError; it never skips anything silently.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from rft.errors import MissingRangeError
from rft.log.coordinates import LogPosition, Offsets
from rft.log.events import Event


class LogView(Protocol):
    """A log as it is now or was. Its offsets are those of the topics that it was written to."""

    @property
    def name(self) -> str:
        """Says where the events come from, for people."""

    def entities(self) -> tuple[str, ...]:
        """Return the topics that it holds."""

    def begin_offsets(self, entity: str) -> dict[int, int]:
        """Return the first offset that it holds of each partition."""

    def end_offsets(self, entity: str) -> dict[int, int]:
        """Return the offset after the last event of each partition."""

    def read(self, entity: str, *, start: Offsets | None = None, end: Offsets | None = None) -> Iterator[Event]:
        """Return the events from ``start`` to ``end`` (exclusive), each partition in the order of its offsets.

        Between partitions the event with the lowest (timestamp, partition, offset) comes first, so the same range is
        always read in the same order. Partitions that ``start`` or ``end`` don't name are read from their beginning
        or to their present end.

        Raises:
            MissingRangeError: Some of the range is not there.
        """

    def fetch(self, entity: str, partition: int, offset: int) -> Event:
        """Return one event. Raises MissingRangeError if it is not there."""

    def close(self) -> None:
        """Let go of connections and files."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def merge(partitions: list[Iterator[Event]]) -> Iterator[Event]:
    """Interleave partitions, each in its own order: the lowest next (timestamp, partition, offset) comes first."""
    return heapq.merge(*partitions, key=lambda event: (event.timestamp_ms, event.partition, event.offset))


def no_event_there(name: str, entity: str, position: LogPosition) -> MissingRangeError:
    """Return the error for an offset that the log covers, but at which it holds no event."""
    partition, offset = position
    advice = "Compaction or a transaction left no event there."
    return MissingRangeError(name, entity, partition, offset, offset + 1, advice)
