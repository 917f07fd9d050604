"""Holds everything that depends on private parts of Faust and aiokafka. Read it first when either gets a new version.

Faust has no setting or method for these:

- How long the broker may hold a fetch: Faust has 1,500 ms written into its code.
- Where reading goes on after a rebalance. Faust throws away what a fetch brings while partitions change hands, and then
  seeks to the committed offsets. If no offset is committed, it seeks nowhere (aiokafka's ``seek_to_committed`` counts
  offset 0 as none), so what was thrown away would be skipped for good.
- Committing offsets that we counted. Faust's consumer lives in a thread of its own, and the commit must run there.
- How long the producer keeps an event that the broker does not acknowledge. aiokafka gives up after the time that one
  request may take, although it could go on trying when the broker is back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

logger = logging.getLogger(__name__)

TESTED_FAUST = "0.15.3"
"""The version of faust-streaming whose private parts this file was tested with."""
TESTED_AIOKAFKA = "0.14.0"


def warn_if_untested() -> None:
    """Log a warning for each library that is installed in another version than the tested one."""
    for library, tested in (("faust-streaming", TESTED_FAUST), ("aiokafka", TESTED_AIOKAFKA)):
        installed = version(library)
        if installed != tested:
            logger.warning(
                "%s %s is installed, but the processor was tested with %s only. If it misbehaves, install %s==%s",
                library,
                installed,
                tested,
                library,
                tested,
            )


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: PromptTransport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # aiokafka reads this attribute when the consumer starts.
        consumer._fetch_max_wait_ms = transport.fetch_wait_ms
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        committed: Mapping[TP, int] = await super().seek_to_committed()
        uncommitted = [TopicPartition(tp.topic, tp.partition) for tp, offset in committed.items() if not offset]
        # IllegalStateError: a partition was revoked meanwhile. Its next assignment seeks again.
        with suppress(IllegalStateError):
            if uncommitted:
                await self.call_thread(self._ensure_consumer().seek_to_beginning, *uncommitted)
        return committed


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Producer(driver.Producer):
    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        producer._message_accumulator._batch_ttl = math.inf
        return producer


class PromptTransport(driver.Transport):
    """Is Faust's Kafka transport, with fetches that wait at most ``fetch_wait_ms`` for events, and with a producer that
    tries to write its events for as long as it lives.
    """

    Consumer = _Consumer
    Producer = _Producer

    def __init__(self, *args: Any, fetch_wait_ms: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fetch_wait_ms = fetch_wait_ms


async def commit(app: faust.App, topic: str, offsets: Mapping[int, int]) -> None:
    """Commit the next offset to read of each partition, in the consumer's thread. Raises KafkaError if refused."""
    thread = app.consumer._thread
    request = {TopicPartition(topic, number): OffsetAndMetadata(offset, "") for number, offset in offsets.items()}
    await thread.call_thread(thread._ensure_consumer().commit, request)
