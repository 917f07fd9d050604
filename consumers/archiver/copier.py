"""Sorts events into open files and finishes these when they are big or old enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rft.log.archive import ArchiveFile, ArchiveStore, FileWriter
from rft.log.events import Event, Position


@dataclass(frozen=True, slots=True)
class Rolling:
    """When a file is finished."""

    size_bytes: int
    age_s: float
    codec: str


@dataclass(slots=True)
class _Open:
    writer: FileWriter
    since: float


class Copier:
    """The files that are being written. Times are seconds of any clock that only goes forward."""

    def __init__(
        self, store: ArchiveStore, topics: Mapping[str, str], positions: Mapping[Position, int], rolling: Rolling
    ) -> None:
        """``topics`` are names by entity; ``positions`` are where each partition goes on."""
        self._store = store
        self._topics = topics
        self._next = dict(positions)
        self._rolling = rolling
        self._open: dict[Position, _Open] = {}
        self.events = 0
        """Taken in since the start."""
        self.size_bytes = 0

    def take(self, events: Iterable[Event], now: float) -> None:
        """Write events that follow on those before in each partition. ArchiveError if they cannot be written."""
        for event in events:
            where = event.entity, event.partition
            file = self._open.get(where) or self._begin(where, now)
            file.writer.write(event)
            self._next[where] = event.offset + 1
            self.events += 1
            self.size_bytes += len(event.value or b"")

    def roll(self, now: float) -> list[ArchiveFile]:
        """Finish the files that are due."""
        return [self._finish(where) for where, file in list(self._open.items()) if self._is_due(file, now)]

    def finish(self) -> list[ArchiveFile]:
        """Finish all files."""
        return [self._finish(where) for where in list(self._open)]

    def abandon(self) -> None:
        """Let go of all files unfinished."""
        for file in self._open.values():
            file.writer.abandon()
        self._open.clear()

    def _begin(self, where: Position, now: float) -> _Open:
        entity, partition = where
        # Not the event's own offset: between them may be transaction markers or compacted events, which are no gap.
        writer = FileWriter(self._store, self._topics[entity], partition, self._next[where], self._rolling.codec)
        file = self._open[where] = _Open(writer, now)
        return file

    def _is_due(self, file: _Open, now: float) -> bool:
        return file.writer.size_bytes >= self._rolling.size_bytes or now - file.since >= self._rolling.age_s

    def _finish(self, where: Position) -> ArchiveFile:
        done = self._open[where].writer.finish(self._next[where])
        del self._open[where]
        return done
