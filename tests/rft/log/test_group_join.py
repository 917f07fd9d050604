"""A consumer whose poll runs out of time while it joins its group again still gets its partitions."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from kafka import KafkaConsumer
from kafka.admin import NewPartitions
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

from rft.log.clients import make_admin, make_consumer
from rft.log.group_join import finish_join
from rft.log.topics import consumer_group, ensure_topics, topic_name

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

NEVER_S = 1.5
JOIN_S = 30


def poll_until(consumer: KafkaConsumer, done: Callable[[], bool], seconds: float, *, finish: bool) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        if finish:
            finish_join(consumer)
        consumer.poll(timeout_ms=200)
    return done()


@pytest.mark.parametrize("assignor", [CooperativeStickyAssignor, RangePartitionAssignor])
def test_a_join_that_a_poll_broke_off_is_finished_by_the_next_one(kafka_broker, make_config, assignor):
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    topic = topic_name(config, "tasks")
    consumer = make_consumer(
        config, "member", consumer_group(config, "explorers"), partition_assignment_strategy=[assignor]
    )
    consumer.subscribe([topic])

    def assigned() -> int:
        return len(consumer.assignment())

    assert poll_until(consumer, lambda: assigned() == 1, JOIN_S, finish=True)
    admin = make_admin(config, "partitions")
    admin.create_partitions({topic: NewPartitions(total_count=2)})
    admin.close()
    deadline = time.monotonic() + JOIN_S
    while not consumer._coordinator.need_rejoin():
        assert time.monotonic() < deadline, "the consumer has not seen the new partition"
        time.sleep(0.1)

    broken_off = 0
    while not consumer._coordinator.rejoining and broken_off < 100:
        consumer.poll(timeout_ms=1)
        broken_off += 1
    time.sleep(1)
    assert not poll_until(consumer, lambda: assigned() == 2, NEVER_S, finish=False), "kafka-python finishes joins now"
    assert poll_until(consumer, lambda: assigned() == 2, JOIN_S, finish=True)
    consumer.close()
