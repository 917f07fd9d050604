"""Writes events into archive files, and finishes a file when it is big or old enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rft.log.archive import ArchiveFile, ArchiveStore, FileWriter
from rft.log.coordinates import EntityPartition
from rft.log.events import Event


@dataclass(frozen=True, slots=True)
class RollingPolicy:
    """Says when a file is finished, and how it is compressed."""

    size_bytes: int
    age_s: float
    codec: str


@dataclass(slots=True)
class _OpenFile:
    writer: FileWriter
    opened_at: float


class Copier:
    """Keeps the files that are being written. Times are seconds of any clock that only goes forward."""

    def __init__(
        self,
        store: ArchiveStore,
        topics: Mapping[str, str],
        positions: Mapping[EntityPartition, int],
        rolling: RollingPolicy,
    ) -> None:
        """``topics`` are names by entity; ``positions`` are the next offset to copy of each partition."""
        self._store = store
        self._topics = topics
        self._next = dict(positions)
        self._rolling = rolling
        self._open: dict[EntityPartition, _OpenFile] = {}
        self.events = 0
        """Copied since the start."""
        self.size_bytes = 0

    def take(self, events: Iterable[Event], now: float) -> None:
        """Write events that come next in their partitions. Raises ArchiveError if they cannot be written."""
        for event in events:
            at = EntityPartition(event.entity, event.partition)
            file = self._open.get(at) or self._begin(at, now)
            file.writer.write(event)
            self._next[at] = event.offset + 1
            self.events += 1
            self.size_bytes += len(event.value or b"")

    def roll(self, now: float) -> list[ArchiveFile]:
        """Finish the files that are due."""
        return [self._finish(at) for at, file in list(self._open.items()) if self._is_due(file, now)]

    def finish(self) -> list[ArchiveFile]:
        """Finish all files."""
        return [self._finish(at) for at in list(self._open)]

    def abandon(self) -> None:
        """Close all files without finishing them."""
        for file in self._open.values():
            file.writer.abandon()
        self._open.clear()

    def _begin(self, at: EntityPartition, now: float) -> _OpenFile:
        # From the next offset, not the event's own: transaction markers and compacted events between them are no gap.
        writer = FileWriter(self._store, self._topics[at.entity], at.partition, self._next[at], self._rolling.codec)
        file = self._open[at] = _OpenFile(writer, now)
        return file

    def _is_due(self, file: _OpenFile, now: float) -> bool:
        return file.writer.size_bytes >= self._rolling.size_bytes or now - file.opened_at >= self._rolling.age_s

    def _finish(self, at: EntityPartition) -> ArchiveFile:
        done = self._open[at].writer.finish(self._next[at])
        del self._open[at]
        return done
