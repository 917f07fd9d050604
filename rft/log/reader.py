"""Reading topics from positions of one's own, without a consumer group."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar, overload

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from rft.config import Config
from rft.errors import BrokerError, DecodeError, MissingRangeError, TopicError
from rft.log.clients import make_consumer
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.patience import OutageTolerance
from rft.log.registry import open_registry
from rft.log.retention import deleted
from rft.log.topics import topic_name
from schemas.codec import DEFAULT_MAX_BYTES, decode
from schemas.events import Record
from schemas.framing import SchemaLookup

Position = tuple[str, int]
"""(entity, partition)"""
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Event:
    """One message as it stands on the log."""

    entity: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    """None is a tombstone."""
    headers: tuple[tuple[str, bytes | None], ...]
    max_bytes: int = DEFAULT_MAX_BYTES
    """A larger value is no valid record."""
    writer_schemas: SchemaLookup | None = field(default=None, repr=False, compare=False)
    """Finds schemas that the value names by a registry's id."""

    @overload
    def record(self) -> Any: ...
    @overload
    def record(self, expect: type[R]) -> R: ...
    def record(self, expect: type[Record] | None = None) -> Any:
        """The decoded value, checked to be an ``expect`` if given.

        Raises DecodeError if it is malformed, RegistryError if its schema is in a registry that cannot be asked now.
        """
        if self.value is None:
            raise DecodeError("the message is a tombstone (no value)")
        return decode(
            self.value, expect, max_bytes=self.max_bytes, writer_schemas=self.writer_schemas, headers=self.headers
        )


class EventReader:
    """Reads all partitions of some topics, each from a position that the caller owns. Not thread-safe."""

    def __init__(
        self,
        config: Config,
        client_id: str,
        entities: Iterable[str],
        *,
        positions: Mapping[Position, int] | None = None,
        from_end: bool = False,
        needed: str = "reading was to go on there",
        choices: Collection[str] = (),
        **consumer_options: Any,
    ) -> None:
        """``positions`` maps (entity, partition) to the next offset to read; others start at the beginning, or at
        the end if ``from_end``. ``needed`` and ``choices`` are for the error when the log has deleted what comes next,
        see :func:`rft.log.retention.deleted`.

        Raises:
            BrokerError: The broker cannot be reached, or its log ends before the positions.
            TopicError: A topic is missing.
            MissingRangeError: The log begins after the positions.
        """
        self._config = config
        self._needed, self._choices = needed, tuple(choices)
        self._entities = {topic_name(config, entity): entity for entity in entities}
        self._ends = OffsetReader(config, client_id)
        self._patience = OutageTolerance(f"cannot read {', '.join(self._entities)}")
        self._max_bytes = config.log.max_message_bytes
        registry = open_registry(config)
        self._writer_schemas = None if registry is None else registry.find
        # "none": what the log has lost must stop the reader, not move it silently.
        self._consumer = make_consumer(config, client_id, **{"auto_offset_reset": "none", **consumer_options})
        try:
            self._partitions = self._find_partitions()
            self._consumer.assign(list(self._partitions.values()))
            self._start(dict(positions or {}), from_end)
        except BaseException:
            self.close()
            raise

    @property
    def positions(self) -> dict[Position, int]:
        """Next offset to read of each (entity, partition), counting what ``poll`` has returned."""
        return dict(self._positions)

    def poll(self, timeout_s: float = 0.5, max_events: int = 500) -> list[Event]:
        """Events, in order within each partition; empty if none came within ``timeout_s``.

        A broker that is away is borne for a minute; then, or if trying again cannot help, BrokerError. What retention
        has deleted before it was read is a MissingRangeError; :meth:`seek` behind it to go on.
        """
        try:
            batches = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_events)
        except OffsetOutOfRangeError:
            self._refuse_positions()
            return []
        except KafkaError as error:
            self._patience.bear(error)
            return []
        self._patience.eased()
        events = []
        for partition, messages in batches.items():
            where = (self._entities[partition.topic], partition.partition)
            events += [self._event(where, message) for message in messages]
            self._positions[where] = messages[-1].offset + 1
        return events

    def seek(self, entity: str, partition: int, offset: int) -> None:
        """Read on from ``offset``."""
        self._consumer.seek(self._partitions[entity, partition], offset)
        self._positions[entity, partition] = offset

    def pause(self, entity: str, partition: int | None = None) -> None:
        """``poll`` returns nothing more of this topic (or partition) until ``resume``; nothing is skipped."""
        self._consumer.pause(*self._of(entity, partition))

    def resume(self, entity: str, partition: int | None = None) -> None:
        """Undo ``pause``."""
        self._consumer.resume(*self._of(entity, partition))

    def reached(self, entity: str, partition: int) -> int:
        """The offset that ``poll`` goes on from, past what it never returns: transaction markers, compacted events."""
        return max(
            self._positions[entity, partition], int(self._consumer.position(self._partitions[entity, partition]) or 0)
        )

    def end_offsets(self) -> dict[Position, int]:
        """The offset after the last event of each (entity, partition)."""
        return self._by_position(self._ends.ask(self._partitions.values()))

    def begin_offsets(self) -> dict[Position, int]:
        """The first offset that is still kept of each (entity, partition)."""
        return self._by_position(ask_offsets(self._consumer.beginning_offsets, self._partitions.values()))

    def caught_up(self, ends: Mapping[Position, int]) -> bool:
        """Whether everything before ``ends`` has been returned by ``poll``."""
        return all(self._positions.get(where, 0) >= end for where, end in ends.items())

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()
        self._ends.close()

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _event(self, where: Position, m: Any) -> Event:
        headers = tuple(m.headers or ())
        return Event(*where, m.offset, m.timestamp, m.key, m.value, headers, self._max_bytes, self._writer_schemas)

    def _of(self, entity: str, number: int | None = None) -> list[TopicPartition]:
        return [
            partition
            for (name, at), partition in self._partitions.items()
            if name == entity and (number is None or at == number)
        ]

    def _find_partitions(self) -> dict[Position, TopicPartition]:
        found: dict[Position, TopicPartition] = {}
        for topic, entity in self._entities.items():
            numbers = self._numbers(topic)
            found |= {(entity, number): TopicPartition(topic, number) for number in sorted(numbers)}
        return found

    def _numbers(self, topic: str) -> set[int]:
        """Partition numbers; a topic just made may take a moment to be known."""
        deadline = time.monotonic() + 3
        while True:
            numbers = self._consumer.partitions_for_topic(topic)
            if numbers:
                return set(numbers)
            if time.monotonic() > deadline:
                raise TopicError(f"topic {topic} does not exist. `rft run` creates the topics")
            time.sleep(0.1)

    def _start(self, saved: Mapping[Position, int], from_end: bool) -> None:
        self._positions: dict[Position, int] = {}
        begins = self.begin_offsets()
        ends = self.end_offsets() if saved or from_end else {}
        for where, partition in self._partitions.items():
            offset = saved.get(where, ends[where] if from_end else begins[where])
            if where in saved and offset < begins[where]:
                raise self._missing(where, offset, begins[where])
            if where in saved and offset > ends[where]:
                raise BrokerError(_not_this_log(partition, offset, ends[where]))
            self.seek(*where, offset)

    def _refuse_positions(self) -> None:
        begins, ends = self.begin_offsets(), self.end_offsets()
        for where, at in self._positions.items():
            if at < begins[where]:
                raise self._missing(where, at, begins[where])
            if at > ends[where]:
                raise BrokerError(_not_this_log(self._partitions[where], at, ends[where]))

    def _missing(self, where: Position, start: int, end: int) -> MissingRangeError:
        return deleted(self._config, *where, start, end, *self._choices, needed=self._needed)

    def _by_position(self, offsets: Mapping[TopicPartition, int]) -> dict[Position, int]:
        return {where: offsets[partition] for where, partition in self._partitions.items()}


def _not_this_log(partition: TopicPartition, offset: int, end: int) -> str:
    return (
        f"topic {partition.topic}, partition {partition.partition}: reading is to go on at offset {offset}, but the "
        f"log ends at {end}: it is not the log that this position was saved for (an embedded broker's log ends with "
        "its run). Start a new run, or name the cluster that holds the old log"
    )
