"""Reads topics from positions that the caller keeps, without a consumer group."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, OffsetOutOfRangeError

from rft.config import Config
from rft.errors import BrokerError, TopicError
from rft.log.clients import make_consumer, reach_broker
from rft.log.coordinates import EntityPartition
from rft.log.events import Event
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.open_transactions import OpenTransactionMonitor
from rft.log.outages import Outage, wait_out
from rft.log.registry import schema_lookup
from rft.log.retention import retention_error
from rft.log.topics import missing_advice, topic_name
from rft.retry import Deadline
from schemas.framing import SchemaLookup

_POSITION_MS = 500
"""After a leader has moved, kafka-python asks the new one whether it still holds the position."""
_TOPIC_KNOWN_S = 3.0
"""How long a topic that was just created may take to be known."""


class EventReader:
    """Reads all partitions of some topics, each from a position that the caller owns. Not thread-safe."""

    def __init__(
        self,
        config: Config,
        client_id: str,
        entities: Iterable[str],
        *,
        positions: Mapping[EntityPartition, int] | None = None,
        from_end: bool = False,
        needed: str = "reading was to go on there",
        choices: Collection[str] = (),
        **consumer_options: Any,
    ) -> None:
        """Connect.

        Args:
            positions: Next offset to read of each partition. The others start at the beginning, or at the end if
                ``from_end``.
            needed: Explains the error when the log has deleted what comes next; see
                :func:`rft.log.retention.retention_error`.
            choices: For the same error.

        Raises:
            BrokerError: The broker cannot be reached, or its log ends before the positions.
            TopicError: A topic is missing.
            MissingRangeError: The log begins after the positions.
        """
        self._config = config
        self._needed, self._choices = needed, tuple(choices)
        self._entities = {topic_name(config, entity): entity for entity in entities}
        self._ends = OffsetReader(config, client_id)
        self._open_transactions = OpenTransactionMonitor(self._ends)
        self._failure = f"cannot read {', '.join(self._entities)}"
        self._outage = Outage(self._failure)
        self._max_bytes = config.log.max_message_bytes
        self._writer_schemas = schema_lookup(config)
        self._paused: dict[EntityPartition, int] = {}
        """Paused partitions, and the offset that each continues from."""
        # "none": what the log has lost must stop the reader, not move it silently.
        self._consumer = make_consumer(config, client_id, **{"auto_offset_reset": "none", **consumer_options})
        try:
            self._partitions = self._find_partitions()
            self._assign()
            self._start(dict(positions or {}), from_end)
        except BaseException:
            self.close()
            raise

    @property
    def positions(self) -> dict[EntityPartition, int]:
        """Next offset to read of each partition, after the events that ``poll`` has returned."""
        return dict(self._positions)

    def poll(self, timeout_s: float = 0.5, max_events: int = 500) -> list[Event]:
        """Return events, in order within each partition; none if none came within ``timeout_s``.

        Raises:
            BrokerError: The broker has been away for too long (:mod:`rft.log.outages`), or trying again cannot help.
            MissingRangeError: Retention deleted events before they were read; :meth:`seek` behind them to go on.
        """
        if len(self._paused) == len(self._partitions):
            time.sleep(timeout_s)
            return []
        try:
            batches = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_events)
        except OffsetOutOfRangeError:
            self._check_positions()
            return []
        except KafkaError as error:
            self._outage.failed(error)
            return []
        self._outage.succeeded()
        events: list[Event] = []
        for topic_partition, messages in batches.items():
            partition = EntityPartition(self._entities[topic_partition.topic], topic_partition.partition)
            events += [to_event(partition, message, self._max_bytes, self._writer_schemas) for message in messages]
            self._positions[partition] = messages[-1].offset + 1
        if not events:
            self._name_open_transactions()
        return events

    def seek(self, entity: str, partition: int, offset: int) -> None:
        """Read on from ``offset``."""
        at = EntityPartition(entity, partition)
        self._positions[at] = offset
        if at in self._paused:
            self._paused[at] = offset
        else:
            self._consumer.seek(self._partitions[at], offset)

    def pause(self, entity: str, partition: int | None = None) -> None:
        """Return no more events of this topic (or partition) from ``poll`` until ``resume``. Nothing is skipped."""
        self._paused |= {at: self.reached(*at) for at in self._matching(entity, partition) if at not in self._paused}
        self._assign()

    def resume(self, entity: str, partition: int | None = None) -> None:
        """Undo ``pause``."""
        resumed = {at: self._paused.pop(at) for at in self._matching(entity, partition) if at in self._paused}
        self._assign()
        for at, offset in resumed.items():
            self._consumer.seek(self._partitions[at], offset)

    def reached(self, entity: str, partition: int) -> int:
        """Return the offset that ``poll`` continues from.

        It lies after what ``poll`` never returns: transaction markers, aborted events and compacted ones. Raises
        BrokerError as ``poll`` does.
        """
        at = EntityPartition(entity, partition)
        if at in self._paused:
            return self._paused[at]
        try:
            return max(
                self._positions[at], int(self._consumer.position(self._partitions[at], timeout_ms=_POSITION_MS) or 0)
            )
        except KafkaError as error:
            self._outage.failed(error)
            return self._positions[at]

    def end_offsets(self) -> dict[EntityPartition, int]:
        """Return the offset after the last event of each partition that is not held back by an open transaction."""
        return self._by_entity(self._ends.ask(self._partitions.values()))

    def begin_offsets(self) -> dict[EntityPartition, int]:
        """Return the first offset that the log still holds of each partition."""
        partitions = self._partitions.values()
        ask = self._consumer.beginning_offsets
        return self._by_entity(wait_out(self._failure, lambda: ask_offsets(ask, partitions)))

    def caught_up(self, ends: Mapping[EntityPartition, int]) -> bool:
        """Return whether ``poll`` has returned everything before ``ends``."""
        return all(
            self._positions.get(at, 0) >= end or (at in self._partitions and self.reached(*at) >= end)
            for at, end in ends.items()
        )

    def at_end(self) -> bool:
        """Return whether ``poll`` has returned everything that is on the log now, in partitions that are not paused.

        Raises BrokerError.
        """
        return all(at in self._paused or self.reached(*at) >= end for at, end in self.end_offsets().items())

    def close(self) -> None:
        """Disconnect."""
        self._outage.end()
        self._consumer.close()
        self._ends.close()

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _name_open_transactions(self) -> None:
        reading = {partition: at for at, partition in self._partitions.items() if at not in self._paused}
        self._open_transactions.check(self._consumer, reading, lambda partition: self.reached(*reading[partition]))

    def _matching(self, entity: str, number: int | None) -> list[EntityPartition]:
        return [at for at in self._partitions if at.entity == entity and number in (None, at.partition)]

    def _assign(self) -> None:
        """Assign the partitions that are not paused.

        kafka-python's own ``pause`` would do, but it may never return what it holds of a partition after ``resume``.
        """
        if reading := [topic_partition for at, topic_partition in self._partitions.items() if at not in self._paused]:
            self._consumer.assign(reading)

    def _find_partitions(self) -> dict[EntityPartition, TopicPartition]:
        found: dict[EntityPartition, TopicPartition] = {}
        for topic, entity in self._entities.items():
            for number in sorted(wait_out(self._failure, partial(self._numbers, topic))):
                found[EntityPartition(entity, number)] = TopicPartition(topic, number)
        return found

    def _numbers(self, topic: str) -> set[int]:
        deadline = Deadline(_TOPIC_KNOWN_S)
        while True:
            numbers = self._consumer.partitions_for_topic(topic)
            if numbers:
                return set(numbers)
            if deadline.passed:
                reach_broker(self._config)  # one that is away knows no topics either
                raise TopicError(f"topic {topic} does not exist: {missing_advice(self._config)}")
            time.sleep(0.1)

    def _start(self, saved: Mapping[EntityPartition, int], from_end: bool) -> None:
        self._positions: dict[EntityPartition, int] = {}
        begins = self.begin_offsets()
        ends = self.end_offsets() if saved or from_end else {}
        for partition in self._partitions:
            offset = saved.get(partition, ends[partition] if from_end else begins[partition])
            if partition in saved:
                self._check_position(partition, offset, begins[partition], ends[partition])
            self.seek(*partition, offset)

    def _check_positions(self) -> None:
        """Find out which position the log does not hold. Raises MissingRangeError or BrokerError."""
        begins, ends = self.begin_offsets(), self.end_offsets()
        for partition, offset in self._positions.items():
            self._check_position(partition, offset, begins[partition], ends[partition])

    def _check_position(self, partition: EntityPartition, offset: int, begin: int, end: int) -> None:
        if offset < begin:
            raise retention_error(self._config, *partition, offset, begin, *self._choices, needed=self._needed)
        if offset > end:
            topic = self._partitions[partition].topic
            raise BrokerError(
                f"topic {topic}, partition {partition.partition}: reading is to go on at offset {offset}, but the log "
                f"ends at {end}: it is not the log that this position was saved for (an embedded broker's log ends "
                "with its run). Start a new run, or name the cluster that holds the old log"
            )

    def _by_entity(self, offsets: Mapping[TopicPartition, int]) -> dict[EntityPartition, int]:
        return {partition: offsets[topic_partition] for partition, topic_partition in self._partitions.items()}


def to_event(
    partition: EntityPartition, message: ConsumerRecord, max_bytes: int, writer_schemas: SchemaLookup | None
) -> Event:
    """Turn a message of kafka-python into an event."""
    headers = tuple(message.headers or ())
    return Event(
        *partition, message.offset, message.timestamp, message.key, message.value, headers, max_bytes, writer_schemas
    )
