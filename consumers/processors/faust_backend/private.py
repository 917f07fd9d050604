"""Holds everything that depends on private parts of Faust and aiokafka. Read it first when either gets a new version.

Faust has no setting or method for these:

- How long the broker may hold a fetch: Faust has 1,500 ms written into its code.
- The client's rack, from which the broker chooses the replica to fetch from.
- Reading only what is committed. Faust does so only together with its own transactions, which lose outputs.
- Where reading goes on after a rebalance. Faust throws away what a fetch brings while partitions change hands, and then
  seeks to the committed offsets. If no offset is committed, it seeks nowhere (aiokafka's ``seek_to_committed`` counts
  offset 0 as none), so what was thrown away would be skipped for good.
- Sending an event that has neither key nor value: other clients may write one, and its dead letter keeps it.
- Committing offsets that we counted. Faust's consumer lives in a thread of its own, and the commit must run there.
- Reading an event whose header has a name that is no UTF-8: aiokafka would end with it, again at each start.
- How long the producer keeps an event that the broker does not acknowledge. aiokafka gives up after the time that one
  request may take, although it could go on trying when the broker is back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.exceptions import ProducerSendError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from rft.log.clients import ISOLATION_LEVEL
from rft.log.header_names import read_batch

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


class _Batch:
    """Is one of aiokafka's batches, which we read ourselves where aiokafka cannot."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        offset = -1
        try:
            for record in self._batch:
                offset = record.offset
                yield record
        except UnicodeDecodeError:
            yield from (record for record in read_batch(self._data) if record.offset > offset)


class _Records:
    """Is aiokafka's iterator of the batches that a fetch brought."""

    def __init__(self, data: bytes) -> None:
        self._records = _MemoryRecords(data)
        self._data = memoryview(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> _Batch:
        begin = self._at
        (size,) = struct.unpack_from(">i", self._data, begin + _SIZE_AT)
        self._at = begin + _SIZE_AT + 4 + size
        return _Batch(self._records.next_batch(), self._data[begin : self._at])


_SIZE_AT = 8
"""Where a batch holds the number of bytes that follow, in every version of Kafka's format."""
_MemoryRecords = fetcher.MemoryRecords
fetcher.MemoryRecords = _Records


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: PromptTransport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # aiokafka reads these attributes when the consumer starts.
        consumer._fetch_max_wait_ms = transport.fetch_wait_ms
        consumer._isolation_level = ISOLATION_LEVEL
        consumer._client_rack = transport.rack
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

    def __init__(self, *args: Any, fetch_wait_ms: int, rack: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fetch_wait_ms = fetch_wait_ms
        self.rack = rack


async def send_nothing(
    app: faust.App, topic: str, partition: int | None, headers: Sequence[tuple[str, bytes | None]]
) -> asyncio.Future[Any]:
    """Send an event that has neither key nor value. The ``send`` of aiokafka refuses it, but its batches take it.

    Return a future of its acknowledgement. Raises ProducerSendError as Faust's ``send`` does.
    """
    producer = app.producer._ensure_producer()
    try:
        if partition is None:
            partition = random.choice(sorted(await producer.partitions_for(topic)))
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=None, headers=list(headers))
        sent: asyncio.Future[Any] = await producer.send_batch(batch, topic, partition=partition)
    except KafkaError as error:
        raise ProducerSendError(f"Error while sending: {error!r}") from error
    return sent


async def commit(app: faust.App, topic: str, offsets: Mapping[int, int], metadata: Mapping[int, str]) -> None:
    """Commit the next offset to read of each partition, in the consumer's thread. Raises KafkaError if refused."""
    thread = app.consumer._thread
    request = {
        TopicPartition(topic, number): OffsetAndMetadata(offset, metadata.get(number, ""))
        for number, offset in offsets.items()
    }
    await thread.call_thread(thread._ensure_consumer().commit, request)
