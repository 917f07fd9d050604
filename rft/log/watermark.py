"""Which offset may be committed while events finish in any order. Pure."""

from __future__ import annotations

import heapq


class OffsetWatermark:
    """Tracks one partition's events in flight, so that a slow one never loses itself or holds up its neighbours.

    Memory is bounded by the events between the oldest unfinished one and the newest.
    """

    def __init__(self) -> None:
        self._in_flight: set[int] = set()
        self._oldest: list[int] = []
        self._next: int | None = None

    def started(self, offset: int) -> None:
        """An event was taken. Offsets come in rising order; one taken again (a redelivery) is in flight again."""
        if offset not in self._in_flight:
            self._in_flight.add(offset)
            heapq.heappush(self._oldest, offset)
        self._next = offset + 1 if self._next is None else max(self._next, offset + 1)

    def finished(self, offset: int) -> None:
        """The event needs no more work. One that was never started is ignored: its partition came and went."""
        self._in_flight.discard(offset)

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
