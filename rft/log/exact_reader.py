"""Reads events of one topic at exact offsets."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, OffsetOutOfRangeError

from rft.config import Config
from rft.errors import OutageError
from rft.log.clients import make_consumer
from rft.log.coordinates import EntityPartition, LogPosition
from rft.log.events import Event
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.outages import Outage, ProgressWatch, is_outage, wait_out
from rft.log.reader import to_event
from rft.log.registry import schema_lookup
from rft.log.topics import topic_name

NEAR = 500
"""Offsets that are read over rather than jumped over: a jump throws away what was fetched ahead."""
FETCH_BYTES = 512 * 1024
"""Fetched ahead of a partition; after a jump the rest of it was for nothing."""
STALL_S = 60.0
"""Without any progress for so long, the broker counts as gone."""


class ExactReader:
    """Fetches events of one topic by their positions. Connects when first asked. Not thread-safe."""

    def __init__(self, config: Config, client_id: str, entity: str) -> None:
        self._config = config
        self._client_id = client_id
        self._entity = entity
        self._topic = topic_name(config, entity)
        self._writer_schemas = schema_lookup(config)
        self._consumer: KafkaConsumer | None = None
        self._end_reader = OffsetReader(config, client_id)
        self._ends: dict[TopicPartition, int] = {}
        """Ends as last asked for. They only grow, so what lies before them is asked for once."""

    def read(self, positions: Collection[LogPosition], stall_s: float = STALL_S) -> dict[LogPosition, Event]:
        """Return the events at ``positions``, without those that the log does not hold (any more).

        Partitions are read together, each in the order of its offsets.

        Raises BrokerError when nothing has come for ``stall_s``, or when trying again cannot help.
        """
        todo = self._group(positions)
        found: dict[LogPosition, Event] = {}
        outage = Outage(f"cannot fetch events of {self._topic}", _may_pass, stall_s)
        while todo:
            try:
                self._read(todo, found, outage, stall_s)
            except (KafkaError, OutageError) as error:
                self._ends.clear()
                outage.failed(error)
        return found

    def begin_offset(self, partition: int) -> int:
        """Return the first offset that the log still holds. Raises BrokerError."""
        at = TopicPartition(self._topic, partition)

        def ask() -> int:
            consumer = self._connect()
            # kafka-python learns where the leaders of assigned partitions are, and of no others.
            consumer.assign([at])
            return ask_offsets(consumer.beginning_offsets, [at])[at]

        return wait_out(f"cannot read where {self._topic} begins", ask)

    def end_offset(self, partition: int) -> int:
        """Return the offset after the last event. Raises BrokerError."""
        at = TopicPartition(self._topic, partition)
        return self._end_reader.ask([at])[at]

    def close(self) -> None:
        """Disconnect."""
        self._end_reader.close()
        if self._consumer is not None:
            self._consumer.close()

    def _group(self, positions: Collection[LogPosition]) -> dict[TopicPartition, _Part]:
        offsets: dict[int, set[int]] = {}
        for partition, offset in positions:
            offsets.setdefault(partition, set()).add(offset)
        return {TopicPartition(self._topic, number): _Part(deque(sorted(offsets[number]))) for number in offsets}

    def _connect(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = make_consumer(
                self._config, self._client_id, auto_offset_reset="none", max_partition_fetch_bytes=FETCH_BYTES
            )
        return self._consumer

    def _read(
        self,
        todo: dict[TopicPartition, _Part],
        found: dict[LogPosition, Event],
        outage: Outage,
        stall_s: float,
    ) -> None:
        """Move what ``todo`` names to ``found``, as far as the log holds it. Raises KafkaError, BrokerError."""
        consumer = self._connect()
        self._aim(consumer, todo)

        def begin_again() -> None:
            self._aim(consumer, todo)

        def fault() -> str:
            at, part = min(todo.items())
            return f"{at.topic} {at.partition}:{part.wanted[0]} could not be fetched in time"

        watch = ProgressWatch(stall_s, begin_again, fault)
        while todo:
            watch.check()
            batches = consumer.poll(timeout_ms=200, max_records=NEAR)
            finished = False
            for at, part in list(todo.items()):
                messages = batches.get(at, [])
                for message in messages:
                    if part.take(message.offset):
                        event = self._event(at.partition, message)
                        found[event.position] = event
                # The position lies after what is never returned: transaction markers and compacted events.
                if part.read_to(messages[-1].offset + 1 if messages else int(consumer.position(at) or 0)):
                    outage.succeeded()
                    watch.moved()
                if not part.wanted:
                    del todo[at]
                    finished = True
                elif part.wanted[0] > part.reached + NEAR:
                    self._seek(consumer, at, part)
            if finished and todo:
                # Not paused: kafka-python may never return what it holds of a partition that was paused and resumed.
                consumer.assign(list(todo))

    def _aim(self, consumer: KafkaConsumer, todo: dict[TopicPartition, _Part]) -> None:
        """Start each partition at the first wanted offset. Leave out what the log does not hold."""
        # Before asking: kafka-python learns the leaders of what is assigned.
        consumer.assign(list(todo))
        begins = ask_offsets(consumer.beginning_offsets, list(todo))
        beyond = [at for at, part in todo.items() if part.wanted[-1] >= self._ends.get(at, 0)]
        if beyond:
            self._ends |= self._end_reader.ask(beyond)
        for at, part in list(todo.items()):
            part.limit(begins[at], self._ends[at])
            if not part.wanted:
                del todo[at]
        if not todo:
            return
        consumer.assign(list(todo))
        for at, part in todo.items():
            self._seek(consumer, at, part)

    def _seek(self, consumer: KafkaConsumer, at: TopicPartition, part: _Part) -> None:
        consumer.seek(at, part.wanted[0])
        part.reached = part.wanted[0]

    def _event(self, partition: int, message: ConsumerRecord) -> Event:
        at = EntityPartition(self._entity, partition)
        return to_event(at, message, self._config.log.max_message_bytes, self._writer_schemas)


@dataclass(slots=True)
class _Part:
    """What is still wanted of one partition."""

    wanted: deque[int]
    """Offsets, rising."""
    reached: int = -1
    """The next offset to read."""

    def limit(self, begin: int, end: int) -> None:
        """Leave out what lies before ``begin``, or at or after ``end``."""
        self.wanted = deque(offset for offset in self.wanted if begin <= offset < end)

    def take(self, offset: int) -> bool:
        """Return whether an event that was read is wanted, and cross it off."""
        while self.wanted and self.wanted[0] < offset:
            self.wanted.popleft()  # compaction or a transaction left no event there
        if self.wanted and self.wanted[0] == offset:
            self.wanted.popleft()
            return True
        return False

    def read_to(self, reached: int) -> bool:
        """Note the next offset to read, and return whether there was progress."""
        while self.wanted and self.wanted[0] < reached:
            self.wanted.popleft()
        progress = reached > self.reached
        self.reached = max(reached, self.reached)
        return progress


def _may_pass(error: Exception) -> bool:
    # Retention may overtake the reader; the next try asks again where the log begins.
    return is_outage(error) or isinstance(error, OffsetOutOfRangeError)
