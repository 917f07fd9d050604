"""Caches the newest events in bounded memory: they are the most likely to be fetched again soon."""

from __future__ import annotations

from collections import OrderedDict

from rft.log.coordinates import LogPosition
from rft.stream.actions import Received


class RecentEvents:
    """Holds the newest events, up to ``max_bytes`` of values."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._events: OrderedDict[LogPosition, Received] = OrderedDict()

    def add(self, position: LogPosition, event: Received) -> None:
        self.pop(position)
        self._events[position] = event
        self._bytes += event.size_bytes
        while self._bytes > self._max_bytes:
            self._bytes -= self._events.popitem(last=False)[1].size_bytes

    def pop(self, position: LogPosition) -> Received | None:
        event = self._events.pop(position, None)
        if event is not None:
            self._bytes -= event.size_bytes
        return event

    def clear(self) -> None:
        self._events.clear()
        self._bytes = 0
