"""Fetching events by their exact places, wherever these are on the log."""

from __future__ import annotations

import time
from collections.abc import Collection

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.offset_queries import ask_offsets
from rft.log.reader import Event
from rft.log.topics import topic_name

Place = tuple[int, int]
"""(partition, offset)"""

NEAR = 500
"""Offsets that are read over rather than jumped over: a jump throws away what was fetched ahead."""


class PlaceReader:
    """Reads single events of one topic. Connects when first asked. Not thread-safe."""

    def __init__(self, config: Config, client_id: str, entity: str) -> None:
        self._config = config
        self._client_id = client_id
        self._entity = entity
        self._topic = topic_name(config, entity)
        self._consumer: KafkaConsumer | None = None

    def read(self, places: Collection[Place], timeout_s: float = 60.0) -> dict[Place, Event]:
        """The events at ``places``; without those that the log does not hold (any more).

        Raises BrokerError when the broker does not answer in time.
        """
        found: dict[Place, Event] = {}
        deadline = time.monotonic() + timeout_s
        for partition in sorted({partition for partition, _ in places}):
            offsets = sorted({offset for p, offset in places if p == partition})
            while True:
                try:
                    self._read_partition(TopicPartition(self._topic, partition), offsets, found, deadline)
                    break
                except KafkaError as error:
                    if not error.retriable or time.monotonic() > deadline:
                        raise BrokerError(f"cannot fetch events of {self._topic}: {error}") from error
                    time.sleep(0.2)
        return found

    def first_offset(self, partition: int) -> int:
        """The first offset that the log still holds."""
        at = TopicPartition(self._topic, partition)
        return ask_offsets(self._open().beginning_offsets, [at])[at]

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            self._consumer.close()

    def _open(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = make_consumer(
                self._config, self._client_id, auto_offset_reset="none", max_partition_fetch_bytes=512 * 1024
            )
        return self._consumer

    def _read_partition(
        self, partition: TopicPartition, offsets: list[int], found: dict[Place, Event], deadline: float
    ) -> None:
        consumer = self._open()
        consumer.assign([partition])
        begin = ask_offsets(consumer.beginning_offsets, [partition])[partition]
        wanted = [offset for offset in offsets if offset >= begin]
        if not wanted:
            return
        consumer.seek(partition, wanted[0])
        reached = wanted[0]
        while wanted:
            if time.monotonic() > deadline:
                raise BrokerError(f"{partition.topic} {partition.partition}:{wanted[0]} could not be fetched in time")
            if wanted[0] > reached + NEAR:
                consumer.seek(partition, wanted[0])
                reached = wanted[0]
            for m in consumer.poll(timeout_ms=200, max_records=NEAR).get(partition, []):
                if m.offset == wanted[0]:
                    headers = tuple(m.headers or ())
                    where = (partition.partition, m.offset)
                    found[where] = Event(self._entity, *where, m.timestamp, m.key, m.value, headers)
                    wanted.pop(0)
                    if not wanted:
                        return
            reached = int(consumer.position(partition) or reached)
            # Past it without having seen it: the log holds no event there.
            while wanted and wanted[0] < reached:
                wanted.pop(0)
