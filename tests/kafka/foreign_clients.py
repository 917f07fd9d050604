"""Producers as other people write them: with transactions, any codec, and nulls. They share nothing with our writer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from kafka import KafkaProducer

from rft.config import Config
from rft.log.topics import topic_name
from schemas.codec import encode
from schemas.events import Record


class Foreign(NamedTuple):
    """One event of a foreign producer."""

    entity: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def foreign(entity: str, key: str, record: Record) -> Foreign:
    return Foreign(entity, key.encode(), encode(record))


@contextmanager
def foreign_producer(config: Config, **options: Any) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=config.broker.bootstrap_servers, **options)
    try:
        yield producer
    finally:
        producer.close(timeout=5)


@contextmanager
def transactional_producer(config: Config) -> Iterator[KafkaProducer]:
    with foreign_producer(config, transactional_id=f"foreign-{uuid.uuid4().hex}") as producer:
        producer.init_transactions()
        yield producer


def send_all(producer: KafkaProducer, config: Config, events: Iterable[Foreign]) -> list[tuple[int, int]]:
    """Send events and return their partitions and offsets."""
    sent = [
        producer.send(topic_name(config, event.entity), value=event.value, key=event.key, headers=list(event.headers))
        for event in events
    ]
    producer.flush()
    found = [future.get(10) for future in sent]
    return [(one.partition, one.offset) for one in found]


def transact(producer: KafkaProducer, config: Config, events: Iterable[Foreign], *, commit: bool) -> Any:
    """Write events in one transaction, and commit or abort it. Return their partitions and offsets."""
    producer.begin_transaction()
    positions = send_all(producer, config, events)
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()
    return positions


def send_with_nulls(config: Config, events: Iterable[Foreign]) -> None:
    """Send events whose headers may be null, which kafka-python cannot, or that have neither key nor value."""

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=config.broker.bootstrap_servers)
        await producer.start()
        try:
            for event in events:
                topic = topic_name(config, event.entity)
                batch = producer.create_batch()
                batch.append(key=event.key, value=event.value, timestamp=None, headers=list(event.headers))
                await producer.partitions_for(topic)
                partition = producer._partition(topic, None, event.key, event.value, event.key, event.value)
                await (await producer.send_batch(batch, topic, partition=partition))
        finally:
            await producer.stop()

    asyncio.run(send())
