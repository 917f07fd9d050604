"""A :class:`rft.log.views.LogView` of the topics themselves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rft.config import Config
from rft.errors import BrokerError, MissingRangeError
from rft.log.clients import bootstrap_servers, make_consumer
from rft.log.reader import Event, EventReader
from rft.log.topics import ENTITIES
from rft.log.views import Offsets, merge

_CLIENT = "log-view"
_STALL_S = 30.0
"""Without a single event for so long, the broker counts as gone."""
_AHEAD_BYTES = 16 * 1024 * 1024
"""A partition that is so far ahead of the others waits for them."""
_DELETED = (
    "Retention deleted them. Read them from an archive (archive.enabled), start after them, or set "
    "log.experience_retention_hours longer"
)


class LiveView:
    """Connects when something is asked for."""

    def __init__(self, config: Config) -> None:
        """BrokerError if the broker cannot be reached."""
        self._config = config
        make_consumer(config, _CLIENT).close()
        self._readers: dict[str, EventReader] = {}

    @property
    def name(self) -> str:
        return f"the log at {', '.join(bootstrap_servers(self._config))}"

    def entities(self) -> tuple[str, ...]:
        return tuple(ENTITIES)

    def begin_offsets(self, entity: str) -> dict[int, int]:
        return {partition: offset for (_, partition), offset in self._reader(entity).begin_offsets().items()}

    def end_offsets(self, entity: str) -> dict[int, int]:
        return {partition: offset for (_, partition), offset in self._reader(entity).end_offsets().items()}

    def read(self, entity: str, *, start: Offsets | None = None, end: Offsets | None = None) -> Iterator[Event]:
        kept, written = self.begin_offsets(entity), self.end_offsets(entity)
        begins, ends = {**kept, **(start or {})}, {**written, **(end or {})}
        for partition in sorted(begins):
            if begins[partition] < min(kept[partition], ends[partition]):
                raise self._deleted(entity, partition, begins[partition], min(kept[partition], ends[partition]))
            if ends[partition] > written[partition]:
                raise self._not_written(entity, partition, max(begins[partition], written[partition]), ends[partition])
        return self._read(entity, begins, ends)

    def fetch(self, entity: str, partition: int, offset: int) -> Event:
        reader = self._reader(entity)
        begin, end = self.begin_offsets(entity)[partition], self.end_offsets(entity)[partition]
        if offset < begin:
            raise self._deleted(entity, partition, offset, offset + 1)
        if offset >= end:
            raise self._not_written(entity, partition, offset, offset + 1)
        reader.seek(entity, partition, offset)
        reader.resume(entity, partition)
        try:
            event = self._first(reader, lambda: reader.reached(entity, partition) > offset)
        finally:
            reader.pause(entity, partition)
        if event is None or event.offset != offset:
            raise MissingRangeError(
                self.name, entity, partition, offset, offset + 1, "Compaction or a transaction left no event there."
            )
        return event

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reader(self, entity: str) -> EventReader:
        """A reader for offsets and single events: it reads nothing by itself."""
        if entity not in self._readers:
            reader = EventReader(self._config, _CLIENT, [entity], auto_offset_reset="none")
            reader.pause(entity)
            self._readers[entity] = reader
        return self._readers[entity]

    def _first(self, reader: EventReader, passed: Callable[[], bool]) -> Event | None:
        deadline = time.monotonic() + _STALL_S
        while True:
            events = reader.poll(0.2, max_events=1)
            if events or passed():
                return events[0] if events else None
            if time.monotonic() > deadline:
                raise BrokerError(f"{self.name} has delivered nothing for {_STALL_S:g} s")

    def _read(self, entity: str, begins: dict[int, int], ends: dict[int, int]) -> Iterator[Event]:
        positions = {(entity, partition): offset for partition, offset in begins.items()}
        with EventReader(self._config, _CLIENT, [entity], positions=positions, auto_offset_reset="none") as reader:
            intake = _Intake(reader, entity, begins, ends, self)
            yield from merge([intake.events(partition) for partition in sorted(begins)])

    def _deleted(self, entity: str, partition: int, start: int, end: int) -> MissingRangeError:
        begin = self.begin_offsets(entity)[partition]
        left = begin < self.end_offsets(entity)[partition]
        since_ms = self.fetch(entity, partition, begin).timestamp_ms if left else None
        return MissingRangeError(self.name, entity, partition, start, end, _DELETED, since_ms=since_ms)

    def _not_written(self, entity: str, partition: int, start: int, end: int) -> MissingRangeError:
        advice = "The log ends before them: it is not the log that these offsets are of, or they are still to come."
        return MissingRangeError(self.name, entity, partition, start, end, advice)

    def deleted_while_read(self, entity: str, partition: int, at: int) -> MissingRangeError:
        """The range from ``at`` that retention deleted before it was read."""
        return self._deleted(entity, partition, at, self.begin_offsets(entity)[partition])


class _Intake:
    """One reader for all partitions of a topic, handed out partition by partition."""

    def __init__(
        self, reader: EventReader, entity: str, begins: dict[int, int], ends: dict[int, int], view: LiveView
    ) -> None:
        self._reader = reader
        self._entity = entity
        self._ends = ends
        self._view = view
        self._waiting: dict[int, deque[Event]] = {partition: deque() for partition in begins}
        self._bytes = dict.fromkeys(begins, 0)
        self._open = {partition for partition in begins if begins[partition] < ends[partition]}
        self._paused: set[int] = set()
        for partition in begins.keys() - self._open:
            reader.pause(entity, partition)

    def events(self, partition: int) -> Iterator[Event]:
        waiting = self._waiting[partition]
        while True:
            while waiting:
                event = waiting.popleft()
                self._bytes[partition] -= _size(event)
                yield event
            if partition not in self._open:
                return
            self._resume(partition)
            self._take_in(partition)

    def _take_in(self, wanted: int) -> None:
        """Poll until something of that partition has come, or nothing more will."""
        heard = time.monotonic()
        while not self._waiting[wanted] and wanted in self._open:
            try:
                events = self._reader.poll(0.2, max_events=2000)
            except MissingRangeError as error:
                raise self._gap() from error
            for event in events:
                self._put(event)
            for partition in list(self._open):
                if self._reader.reached(self._entity, partition) >= self._ends[partition]:
                    self._done(partition)
            now = time.monotonic()
            heard = now if events else heard
            if now - heard > _STALL_S:
                raise BrokerError(f"{self._view.name} has delivered nothing for {_STALL_S:g} s")

    def _put(self, event: Event) -> None:
        partition = event.partition
        if event.offset >= self._ends[partition]:
            self._done(partition)
            return
        self._waiting[partition].append(event)
        self._bytes[partition] += _size(event)
        if self._bytes[partition] > _AHEAD_BYTES and partition not in self._paused:
            self._paused.add(partition)
            self._reader.pause(self._entity, partition)

    def _done(self, partition: int) -> None:
        if partition in self._open:
            self._open.discard(partition)
            self._reader.pause(self._entity, partition)

    def _resume(self, partition: int) -> None:
        if partition in self._paused:
            self._paused.discard(partition)
            self._reader.resume(self._entity, partition)

    def _gap(self) -> MissingRangeError:
        kept = self._view.begin_offsets(self._entity)
        behind = {p: at for (_, p), at in self._reader.positions.items() if p in self._open and at < kept[p]}
        partition, at = min(behind.items())
        return self._view.deleted_while_read(self._entity, partition, at)


def _size(event: Event) -> int:
    return len(event.value or b"") + 200
