"""Kafka clients recover from faults of kafka-python."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from kafka.future import Future

from rft.config import Config
from rft.log.clients import make_consumer
from rft.log.topics import ensure_topics, topic_name


@pytest.mark.kafka
@pytest.mark.timeout(60)
def test_a_group_gets_its_partitions_within_seconds_although_its_request_for_metadata_was_lost(
    kafka_broker: str, make_config: Callable[..., Config]
) -> None:
    """kafka-python loses a request for a topic's partitions that comes while an answer about others is on its way."""
    config = make_config(kafka_broker)
    ensure_topics(config)
    consumer = make_consumer(config, "test", "test")
    try:
        lose_metadata_requests(consumer)
        consumer.subscribe([topic_name(config, "tasks")])
        deadline = time.monotonic() + 40
        while not consumer.assignment():
            assert time.monotonic() < deadline, "no partitions"
            consumer.poll(timeout_ms=100)
    finally:
        consumer.close()


def lose_metadata_requests(consumer: object) -> None:
    """Wait for the first metadata; after it, only kafka-python's periodic refresh gets through."""
    cluster = consumer._cluster
    while cluster.need_update:
        time.sleep(0.01)
    cluster.request_update = lambda: Future().success(cluster)
