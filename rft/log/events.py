"""Events in and out: :class:`EventWriter` publishes records, :class:`EventReader` reads them back as events."""

from __future__ import annotations

from rft.log.reader import Event, EventReader, Position
from rft.log.writer import EventWriter

__all__ = ["Event", "EventReader", "EventWriter", "Position"]
