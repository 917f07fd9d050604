"""Asks the broker about the offsets of the partitions that a processor reads, without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError, OutageLimitError
from rft.log.clients import make_consumer
from rft.log.coordinates import EntityPartition
from rft.log.offset_queries import ask_offsets
from rft.log.retention import first_event
from rft.log.topics import consumer_group, topic_name
from rft.retry import Backoff, Retryable, any_of, retry_async

RETRY_S = 1.0
ANSWER_S = 5.0
"""How long a query may take before it is repeated over a new connection."""
CLOSE_MS = 1000
FAILURES_PER_LINE = 30
"""Failed tries between two lines in the log."""
_FAILED = any_of(BrokerError, KafkaError)
logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class OffsetQueries:
    """Sends one query at a time, in a thread, and repeats it until it is answered. Connects when first asked.

    Each repetition uses a new connection. A client that does not poll may keep an outdated picture of the cluster:
    after a leader moves, such a client asks the former one and is never answered.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._consumer: KafkaConsumer | None = None
        self._one_at_a_time = threading.Lock()

    async def committed(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        """Return the committed offset of each partition that has one."""
        return {at: offset for at, (offset, _) in (await self.committed_metadata(partitions)).items()}

    async def committed_metadata(
        self, partitions: Collection[EntityPartition]
    ) -> dict[EntityPartition, tuple[int, str]]:
        """Return the committed offset of each partition that has one, and the metadata committed with it."""

        def ask(consumer: KafkaConsumer) -> dict[EntityPartition, tuple[int, str]]:
            found = {
                partition: consumer.committed(
                    self._topic_partition(partition), metadata=True, timeout_ms=int(ANSWER_S * 1000)
                )
                for partition in partitions
            }
            return {at: (int(one.offset), one.metadata or "") for at, one in found.items() if one is not None}

        return await self._ask(ask)

    async def begins(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        """Return the first offset of each partition that the log still holds."""
        return await self._ask(lambda consumer: self._offsets(consumer, partitions, at_end=False))

    async def answered_at(self, partition: EntityPartition) -> float:
        """Ask something about a partition, and return when (monotonic seconds) the answer came.

        Raises OutageLimitError when the broker has been away for ``broker.outage_s``.
        """

        def ask(consumer: KafkaConsumer) -> float:
            self._offsets(consumer, [partition], at_end=False)
            return time.monotonic()

        return await self._ask(ask, lambda error: _FAILED(error) and not isinstance(error, OutageLimitError))

    async def ends(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        """Return the offset after the last event of each partition.

        The embedded broker answers with the offset after the first event of the last batch.
        """
        return await self._ask(lambda consumer: self._offsets(consumer, partitions, at_end=True))

    async def first_event(self, partition: EntityPartition, offset: int) -> int | None:
        """Return the offset of the first event from ``offset`` on; None if there is none."""
        found = await self._ask(lambda _consumer: first_event(self._config, *partition, offset))
        return None if found is None else found.offset

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.close)

    async def _ask(self, ask: Callable[[KafkaConsumer], Answer], retryable: Retryable = _FAILED) -> Answer:
        def log(error: Exception, failures: int) -> None:
            if failures % FAILURES_PER_LINE == 1:
                logger.warning("the broker does not say which offsets there are; asking again: %s", error)

        return await retry_async(
            lambda: asyncio.to_thread(self._ask_alone, ask),
            retryable=retryable,
            backoff=Backoff(RETRY_S),
            on_failure=log,
        )

    def _ask_alone(self, ask: Callable[[KafkaConsumer], Answer]) -> Answer:
        with self._one_at_a_time:
            consumer = self._consumer
            if consumer is None:
                group = consumer_group(self._config, "processors")
                consumer = self._consumer = make_consumer(self._config, "processor-offsets", group)
            try:
                return ask(consumer)
            except (BrokerError, KafkaError):
                self._consumer = None
                with contextlib.suppress(KafkaError):
                    consumer.close(timeout_ms=CLOSE_MS)
                raise

    def _offsets(
        self, consumer: KafkaConsumer, partitions: Collection[EntityPartition], *, at_end: bool
    ) -> dict[EntityPartition, int]:
        ours = {self._topic_partition(partition): partition for partition in partitions}
        if not ours:
            return {}
        # kafka-python learns where the leaders of assigned partitions are, and of no others.
        consumer.assign(list(ours))
        ask = consumer.end_offsets if at_end else consumer.beginning_offsets
        return {ours[at]: offset for at, offset in ask_offsets(ask, ours, ANSWER_S).items()}

    def _topic_partition(self, partition: EntityPartition) -> TopicPartition:
        return TopicPartition(topic_name(self._config, partition.entity), partition.partition)
