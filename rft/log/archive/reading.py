"""Reads archive files, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fastavro

from rft.errors import ArchiveError
from rft.log.archive.files import ArchiveFile
from rft.log.archive.store import ArchiveStore
from rft.log.events import Event
from schemas.framing import SchemaLookup


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive events of a file, not yet decoded."""

    first: int
    """Offset of its first event."""
    size_bytes: int
    entity: str
    max_bytes: int
    _block: Any
    _writer_schemas: SchemaLookup | None = None

    def events(self) -> Iterator[Event]:
        """Decode its events; may be called again."""
        self._block.bytes_.seek(0)
        for r in self._block:
            headers = tuple((header["name"], header["value"]) for header in r["headers"])
            yield Event(
                self.entity,
                r["partition"],
                r["offset"],
                r["timestamp"],
                r["key"],
                r["value"],
                headers,
                self.max_bytes,
                self._writer_schemas,
            )


def read_blocks(
    store: ArchiveStore, file: ArchiveFile, entity: str, max_bytes: int, writer_schemas: SchemaLookup | None = None
) -> Iterator[Block]:
    """Return the blocks of a file in order. Raises ArchiveError if it is damaged."""
    with store.open(file) as source:
        try:
            for block in fastavro.block_reader(source):
                first = next(iter(block))["offset"]
                yield Block(first, len(block.bytes_.getbuffer()), entity, max_bytes, block, writer_schemas)
        except (ValueError, EOFError, KeyError, IndexError, StopIteration) as error:
            raise ArchiveError(
                f"archive {store.url}: {file.path} is damaged: {error or type(error).__name__}"
            ) from error
