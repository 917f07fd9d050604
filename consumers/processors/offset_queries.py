"""OffsetQueries to the broker about the partitions that a processor reads, answered in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.offset_queries import ask_offsets
from rft.log.retention import first_event
from rft.log.topics import topic_name
from rft.stream.actions import Source

AGAIN_S = 1.0
Where = tuple[Source, int]
"""(topic, partition)"""
Answer = TypeVar("Answer")


class OffsetQueries:
    """Asks one question at a time and again until it is answered, over a connection that is made when first needed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._consumer: KafkaConsumer | None = None
        self._one_at_a_time = threading.Lock()

    async def committed(self, places: list[Where]) -> dict[Where, int]:
        """Committed positions, of those that have one."""
        return await self._ask(self._committed, places)

    async def begins(self, places: list[Where]) -> dict[Where, int]:
        """The first offset that the log still holds."""
        return await self._ask(lambda consumer, places: self._offsets(consumer.beginning_offsets, places), places)

    async def ends(self, places: list[Where]) -> dict[Where, int]:
        """The offset after the last one; on the embedded broker after the first of the last batch."""
        return await self._ask(lambda consumer, places: self._offsets(consumer.end_offsets, places), places)

    async def first_event(self, where: Where, offset: int) -> int | None:
        """Offset of the first event from ``offset`` on; None if there is none."""
        found = await self._ask(lambda _consumer, where: first_event(self._config, where[0], where[1], offset), where)
        return None if found is None else found.offset

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.close)

    async def _ask(self, ask: Callable[[KafkaConsumer, Any], Answer], about: object) -> Answer:
        while True:
            with contextlib.suppress(BrokerError, KafkaError):
                return await asyncio.to_thread(self._alone, ask, about)
            await asyncio.sleep(AGAIN_S)

    def _alone(self, ask: Callable[[KafkaConsumer, Any], Answer], about: object) -> Answer:
        with self._one_at_a_time:
            if self._consumer is None:
                group = f"{self._config.log.namespace}.processors"
                self._consumer = make_consumer(self._config, "processor-gaps", group)
            return ask(self._consumer, about)

    def _committed(self, consumer: KafkaConsumer, places: list[Where]) -> dict[Where, int]:
        found = {where: consumer.committed(self._partition(where)) for where in places}
        return {where: int(offset) for where, offset in found.items() if offset is not None}

    def _offsets(self, ask: Callable[..., dict[TopicPartition, int]], places: list[Where]) -> dict[Where, int]:
        partitions = {self._partition(where): where for where in places}
        if not partitions:
            return {}
        return {partitions[at]: offset for at, offset in ask_offsets(ask, partitions).items()}

    def _partition(self, where: Where) -> TopicPartition:
        return TopicPartition(topic_name(self._config, where[0]), where[1])
