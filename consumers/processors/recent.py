"""The payloads that are most likely to be wanted again soon."""

from __future__ import annotations

from collections import OrderedDict

from rft.log.places import Place
from rft.stream.actions import Received


class RecentEvents:
    """The newest events, up to so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._events: OrderedDict[Place, Received] = OrderedDict()

    def add(self, place: Place, event: Received) -> None:
        self.pop(place)
        self._events[place] = event
        self._bytes += len(event.value or b"")
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._events.popitem(last=False)[1].value or b"")

    def pop(self, place: Place) -> Received | None:
        event = self._events.pop(place, None)
        if event is not None:
            self._bytes -= len(event.value or b"")
        return event

    def clear(self) -> None:
        self._events.clear()
        self._bytes = 0
