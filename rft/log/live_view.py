"""Reads the topics themselves as a :class:`rft.log.views.LogView`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from rft.config import Config
from rft.errors import BrokerError, MissingRangeError
from rft.log.clients import bootstrap_servers, make_consumer
from rft.log.coordinates import EntityPartition, LogPosition, Offsets
from rft.log.events import Event
from rft.log.exact_reader import ExactReader
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES
from rft.log.views import merge, no_event_there
from rft.retry import Deadline

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
    """The log as it is now. Connects when something is asked for."""

    def __init__(self, config: Config) -> None:
        """Raises BrokerError if the broker cannot be reached."""
        self._config = config
        make_consumer(config, _CLIENT).close()
        self._offset_readers: dict[str, EventReader] = {}
        self._exact_readers: dict[str, ExactReader] = {}

    @property
    def name(self) -> str:
        return f"the log at {', '.join(bootstrap_servers(self._config))}"

    def entities(self) -> tuple[str, ...]:
        return tuple(ENTITIES)

    def begin_offsets(self, entity: str) -> dict[int, int]:
        return _by_partition(self._offset_reader(entity).begin_offsets())

    def end_offsets(self, entity: str) -> dict[int, int]:
        return _by_partition(self._offset_reader(entity).end_offsets())

    def read(self, entity: str, *, start: Offsets | None = None, end: Offsets | None = None) -> Iterator[Event]:
        held, written = self.begin_offsets(entity), self.end_offsets(entity)
        begins, ends = {**held, **(start or {})}, {**written, **(end or {})}
        for partition in sorted(begins):
            first_held = min(held[partition], ends[partition])
            if begins[partition] < first_held:
                raise self._deleted(entity, partition, begins[partition], first_held)
            if ends[partition] > written[partition]:
                raise self._not_written(entity, partition, max(begins[partition], written[partition]), ends[partition])
        return self._read(entity, begins, ends)

    def fetch(self, entity: str, partition: int, offset: int) -> Event:
        if entity not in self._exact_readers:
            self._exact_readers[entity] = ExactReader(self._config, _CLIENT, entity)
        position = LogPosition(partition, offset)
        found = self._exact_readers[entity].read([position], _STALL_S)
        if found:
            return found[position]
        if offset < self.begin_offsets(entity)[partition]:
            raise self._deleted(entity, partition, offset, offset + 1)
        if offset >= self.end_offsets(entity)[partition]:
            raise self._not_written(entity, partition, offset, offset + 1)
        raise no_event_there(self.name, entity, position)

    def close(self) -> None:
        for reader in self._offset_readers.values():
            reader.close()
        for exact_reader in self._exact_readers.values():
            exact_reader.close()
        self._offset_readers.clear()
        self._exact_readers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def deleted_while_read(self, entity: str, partition: int, offset: int) -> MissingRangeError:
        """Return the error for the range from ``offset`` that retention deleted before it was read."""
        return self._deleted(entity, partition, offset, self.begin_offsets(entity)[partition])

    def _offset_reader(self, entity: str) -> EventReader:
        """Return a reader that is asked for offsets only: it never polls."""
        if entity not in self._offset_readers:
            self._offset_readers[entity] = EventReader(self._config, _CLIENT, [entity])
        return self._offset_readers[entity]

    def _read(self, entity: str, begins: Offsets, ends: Offsets) -> Iterator[Event]:
        positions = {EntityPartition(entity, partition): offset for partition, offset in begins.items()}
        with EventReader(self._config, _CLIENT, [entity], positions=positions) as reader:
            feed = _PartitionFeed(reader, entity, begins, ends, self)
            yield from merge([feed.events(partition) for partition in sorted(begins)])

    def _deleted(self, entity: str, partition: int, start: int, end: int) -> MissingRangeError:
        begin = self.begin_offsets(entity)[partition]
        anything_left = begin < self.end_offsets(entity)[partition]
        since_ms = self.fetch(entity, partition, begin).timestamp_ms if anything_left else None
        return MissingRangeError(self.name, entity, partition, start, end, _DELETED, since_ms=since_ms)

    def _not_written(self, entity: str, partition: int, start: int, end: int) -> MissingRangeError:
        advice = "The log ends before them: it is not the log that these offsets are of, or they are still to come."
        return MissingRangeError(self.name, entity, partition, start, end, advice)


class _PartitionFeed:
    """Shares one reader among the partitions of a topic: each is read on only when its next event is asked for."""

    def __init__(self, reader: EventReader, entity: str, begins: Offsets, ends: Offsets, view: LiveView) -> None:
        self._reader = reader
        self._entity = entity
        self._ends = ends
        self._view = view
        self._waiting: dict[int, deque[Event]] = {partition: deque() for partition in begins}
        self._bytes = dict.fromkeys(begins, 0)
        self._unfinished = {partition for partition in begins if begins[partition] < ends[partition]}
        self._paused: set[int] = set()
        for partition in begins.keys() - self._unfinished:
            reader.pause(entity, partition)

    def events(self, partition: int) -> Iterator[Event]:
        waiting = self._waiting[partition]
        while True:
            while waiting:
                event = waiting.popleft()
                self._bytes[partition] -= _size(event)
                yield event
            if partition not in self._unfinished:
                return
            self._resume(partition)
            self._poll_for(partition)

    def _poll_for(self, wanted: int) -> None:
        """Poll until an event of that partition has come, or nothing more will."""
        deadline = Deadline(_STALL_S)
        while not self._waiting[wanted] and wanted in self._unfinished:
            try:
                events = self._reader.poll(0.2, max_events=2000)
            except MissingRangeError as error:
                raise self._deleted() from error
            for event in events:
                self._put(event)
            for partition in list(self._unfinished):
                if self._reader.reached(self._entity, partition) >= self._ends[partition]:
                    self._finish(partition)
            if events:
                deadline = Deadline(_STALL_S)
            elif deadline.passed:
                raise BrokerError(f"{self._view.name} has delivered nothing for {_STALL_S:g} s")

    def _put(self, event: Event) -> None:
        partition = event.partition
        if event.offset >= self._ends[partition]:
            self._finish(partition)
            return
        self._waiting[partition].append(event)
        self._bytes[partition] += _size(event)
        if self._bytes[partition] > _AHEAD_BYTES and partition not in self._paused:
            self._paused.add(partition)
            self._reader.pause(self._entity, partition)

    def _finish(self, partition: int) -> None:
        if partition in self._unfinished:
            self._unfinished.discard(partition)
            self._reader.pause(self._entity, partition)

    def _resume(self, partition: int) -> None:
        if partition in self._paused:
            self._paused.discard(partition)
            self._reader.resume(self._entity, partition)

    def _deleted(self) -> MissingRangeError:
        begins, positions = self._view.begin_offsets(self._entity), _by_partition(self._reader.positions)
        partition = min(p for p in self._unfinished if positions[p] < begins[p])
        return self._view.deleted_while_read(self._entity, partition, positions[partition])


def _by_partition(offsets: Mapping[EntityPartition, int]) -> dict[int, int]:
    return {at.partition: offset for at, offset in offsets.items()}


def _size(event: Event) -> int:
    return len(event.value or b"") + 200
