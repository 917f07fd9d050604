"""Writes one archive file."""

from __future__ import annotations

import contextlib

from fastavro.write import Writer

from rft.errors import ArchiveError
from rft.log.archive.files import ArchiveFile, unfinished_path
from rft.log.archive.store import ArchiveStore
from rft.log.events import Event
from schemas.load import current

BLOCK_BYTES = 64 * 1024
"""Size of uncompressed events that a reader takes in at once."""


class FileWriter:
    """Writes a file. Until ``finish`` gives it its name, it does not count and may be overwritten."""

    def __init__(self, store: ArchiveStore, topic: str, partition: int, first: int, codec: str) -> None:
        """``first`` is the offset that the file begins with, whether or not there is an event at it."""
        self._store = store
        self._topic = topic
        self._partition = partition
        self.first = first
        self._path = unfinished_path(topic, partition, first)
        self._file = store.create(self._path)
        self.size_bytes = 0
        """Size of the events written, before compression."""
        metadata = {"stream_rft.topic": topic, "stream_rft.partition": str(partition), "stream_rft.first": str(first)}
        schema = current("ArchivedEvent").parsed
        self._writer = Writer(
            self._file, schema, codec=codec, compression_level=1, sync_interval=BLOCK_BYTES, metadata=metadata
        )

    def write(self, event: Event) -> None:
        """Add an event. Raises ArchiveError if the disk is full."""
        record = {
            "partition": event.partition,
            "offset": event.offset,
            "timestamp": event.timestamp_ms,
            "key": event.key,
            "value": event.value,
            "headers": [{"name": name, "value": value} for name, value in event.headers],
        }
        try:
            self._writer.write(record)
        except OSError as error:
            raise self._cannot(error) from error
        self.size_bytes += len(event.value or b"") + 200

    def finish(self, end: int) -> ArchiveFile:
        """Force the file to disk and give it its name; ``end`` is the offset that the next file begins with."""
        done = ArchiveFile(self._topic, self._partition, self.first, end)
        try:
            self._writer.flush()
            self._store.force(self._file)
            self._file.close()
        except OSError as error:
            raise self._cannot(error) from error
        self._store.finish(self._path, done.path)
        return done

    def abandon(self) -> None:
        """Close the file without finishing it: its events are copied again."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _cannot(self, error: OSError) -> ArchiveError:
        return ArchiveError(f"archive {self._store.url}: {self._path} cannot be written: {error}")
