"""Faust's Kafka transport, but for two things that it offers no setting for.

- How long the broker may hold a fetch: Faust has 1,500 ms written into its code.
- Where reading goes on after a rebalance. Faust throws away what a fetch brings while partitions change hands, and then
  seeks to what is committed; where nothing is (aiokafka's ``seek_to_committed`` counts offset 0 as nothing), it seeks
  nowhere, and what was thrown away is skipped for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class PromptTransport(driver.Transport):
    """Fetches wait at most ``fetch_wait_ms`` for events."""

    def __init__(self, *args: Any, fetch_wait_ms: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fetch_wait_ms = fetch_wait_ms


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: PromptTransport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts; there is no public way to it.
        consumer._fetch_max_wait_ms = transport.fetch_wait_ms
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        committed: Mapping[TP, int] = await super().seek_to_committed()
        nowhere = [TopicPartition(at.topic, at.partition) for at, offset in committed.items() if not offset]
        # Taken away again meanwhile: then their next assignment seeks.
        with contextlib.suppress(IllegalStateError):
            if nowhere:
                await self.call_thread(self._ensure_consumer().seek_to_beginning, *nowhere)
        return committed


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


PromptTransport.Consumer = _Consumer
