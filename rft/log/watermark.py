"""Tracks which offset may be committed while events finish in any order. Pure."""

from __future__ import annotations

import heapq


class OffsetWatermark:
    """Tracks one partition's events in flight, so that a slow event is neither lost nor holds up the others.

    Memory is bounded by the events between the oldest unfinished one and the newest.
    """

    def __init__(self) -> None:
        self._in_flight: set[int] = set()
        self._oldest: list[int] = []
        self._next: int | None = None

    def started(self, offset: int) -> None:
        """Note that an event was taken. Offsets rise; an offset that comes again (a redelivery) is in flight again."""
        if offset not in self._in_flight:
            self._in_flight.add(offset)
            heapq.heappush(self._oldest, offset)
        self._next = offset + 1 if self._next is None else max(self._next, offset + 1)

    def finished(self, offset: int) -> None:
        """Note that an event needs no more work. Ignores one that was never started: its partition came and went."""
        self._in_flight.discard(offset)

    def is_in_flight(self, offset: int) -> bool:
        """Return whether an event was started and is not finished."""
        return offset in self._in_flight

    @property
    def committable(self) -> int | None:
        """The next offset to read, with everything before it finished; None before the first event."""
        while self._oldest and self._oldest[0] not in self._in_flight:
            heapq.heappop(self._oldest)
        return self._oldest[0] if self._oldest else self._next

    @property
    def in_flight(self) -> int:
        """Events started and not finished."""
        return len(self._in_flight)
