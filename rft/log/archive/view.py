"""Reads an archive as a :class:`rft.log.views.LogView`."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rft.config import Config
from rft.errors import ArchiveError, MissingRangeError
from rft.log.archive.files import ArchiveFile, next_offset, plan
from rft.log.archive.reading import Block, read_blocks
from rft.log.archive.store import ArchiveStore
from rft.log.coordinates import LogPosition, Offsets
from rft.log.events import Event
from rft.log.registry import schema_lookup
from rft.log.topics import ENTITIES, topic_name
from rft.log.views import merge, no_event_there

_CACHE_BYTES = 256 * 1024 * 1024
"""Files that single events were fetched from stay in memory up to this size: the next event is often near."""


class ArchiveView:
    """The finished files of an archive, as they were when they were first asked for."""

    def __init__(self, config: Config, url: str) -> None:
        """Raises ArchiveError if there is no archive, or none of this namespace's topics in it."""
        self._store = ArchiveStore(url)
        self._max_bytes = config.log.max_message_bytes
        self._writer_schemas = schema_lookup(config)
        self._topics = {entity: topic_name(config, entity) for entity in ENTITIES}
        self._counts = self._store.topics()
        self._files: dict[str, dict[int, list[ArchiveFile]]] = {}
        self._cache: OrderedDict[ArchiveFile, list[Block]] = OrderedDict()
        if not self.entities():
            held = ", ".join(sorted(self._counts)) or "nothing"
            ours = ", ".join(self._topics.values())
            raise ArchiveError(f"archive {url} holds {held}, but none of {ours}: set log.namespace or log.topics")

    @property
    def name(self) -> str:
        return f"archive {self._store.url}"

    def entities(self) -> tuple[str, ...]:
        return tuple(entity for entity, topic in self._topics.items() if topic in self._counts)

    def begin_offsets(self, entity: str) -> dict[int, int]:
        return {partition: files[0].first if files else 0 for partition, files in self._archived(entity).items()}

    def end_offsets(self, entity: str) -> dict[int, int]:
        return {partition: next_offset(files) or 0 for partition, files in self._archived(entity).items()}

    def read(self, entity: str, *, start: Offsets | None = None, end: Offsets | None = None) -> Iterator[Event]:
        begins, ends = {**self.begin_offsets(entity), **(start or {})}, {**self.end_offsets(entity), **(end or {})}
        # Planned before the first event is returned: a gap shows at once and not after an hour's reading.
        plans = {p: self._plan(entity, p, begins[p], ends[p]) for p in sorted(begins)}
        return merge([self._read(entity, files, begins[p], ends[p]) for p, files in plans.items()])

    def fetch(self, entity: str, partition: int, offset: int) -> Event:
        (file, *_) = self._plan(entity, partition, offset, offset + 1)
        blocks = self._blocks(entity, file)
        at = bisect_right([block.first for block in blocks], offset) - 1
        found = [event for event in blocks[at].events() if event.offset == offset] if at >= 0 else []
        if not found:
            raise no_event_there(self.name, entity, LogPosition(partition, offset))
        return found[0]

    def close(self) -> None:
        self._cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _archived(self, entity: str) -> dict[int, list[ArchiveFile]]:
        topic = self._topics[entity]
        if topic not in self._counts:
            raise ArchiveError(
                f"{self.name} does not hold {topic}, only {', '.join(sorted(self._counts))}: see archive.entities"
            )
        if entity not in self._files:
            files = self._store.files(topic)
            self._files[entity] = {partition: files.get(partition, []) for partition in range(self._counts[topic])}
        return self._files[entity]

    def _plan(self, entity: str, partition: int, start: int, end: int) -> list[ArchiveFile]:
        files = self._archived(entity).get(partition, [])
        needed, missing = plan(files, start, end)
        if missing:
            first, last = missing[0]
            later = next((file for file in files if file.first >= last), None)
            raise MissingRangeError(
                self.name,
                entity,
                partition,
                first,
                last,
                "They were not archived: look for them in the live log or another archive, or start after them.",
                since_ms=None if later is None else self._first_timestamp(entity, later),
            )
        return needed

    def _first_timestamp(self, entity: str, file: ArchiveFile) -> int:
        return next(next(self._open(entity, file)).events()).timestamp_ms

    def _read(self, entity: str, files: list[ArchiveFile], start: int, end: int) -> Iterator[Event]:
        next_wanted = start
        for file in files:
            for block in self._open(entity, file):
                for event in block.events():
                    if event.offset >= end:
                        return
                    if event.offset >= next_wanted:
                        next_wanted = event.offset + 1
                        yield event

    def _open(self, entity: str, file: ArchiveFile) -> Iterator[Block]:
        return read_blocks(self._store, file, entity, self._max_bytes, self._writer_schemas)

    def _blocks(self, entity: str, file: ArchiveFile) -> list[Block]:
        if file not in self._cache:
            self._cache[file] = list(self._open(entity, file))
            while len(self._cache) > 1 and sum(b.size_bytes for bs in self._cache.values() for b in bs) > _CACHE_BYTES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(file)
        return self._cache[file]
