"""Leaders of partitions move, as Kafka itself moves them every few minutes: processors go on committing."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from kafka_cluster import KafkaCluster

from consumers.processors.offset_queries import OffsetQueries
from rft.log.coordinates import EntityPartition
from rft.log.topics import ensure_topics, topic_name
from tests.consumers.processors.processor_worker import committed, publish, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

CHECKED_OFTEN = """
from consumers.processors import role
role.SUMMARY_S = 0.5
"""
ALL = [EntityPartition("experiences", number) for number in range(3)]


@pytest.fixture
def config(kafka_cluster, make_config):
    kafka_cluster.start()
    config = make_config(kafka_cluster.bootstrap_servers, log={"partitions": 3, "replication_factor": 3})
    ensure_topics(config)
    return config


def move_leaders(cluster: KafkaCluster, node: int) -> None:
    """Restart a node, so that others lead its partitions, and then give them back to it."""
    cluster.terminate(node)
    cluster.restart(node)
    cluster.wait_until_whole()
    cluster.elect_preferred()


def test_commits_go_on_through_a_preferred_leader_election(kafka_cluster, config, start_worker):
    worker = start_worker(config, before=CHECKED_OFTEN)
    publish(config, *range(20))
    wait_for(lambda: committed(config) == 80, 40, lambda: worker.log)
    topic = topic_name(config, "experiences")
    done = 20
    for node in {kafka_cluster.leader_of(topic, 0), kafka_cluster.leader_of(topic, 1)}:
        move_leaders(kafka_cluster, node)
        for _ in range(5):
            publish(config, *range(done, done + 10))
            done += 10
        wait_for(lambda count=done: committed(config) == count * 4, 45, lambda: worker.log)
    assert worker.process.poll() is None, worker.log
    assert worker.stop() == 0, worker.log


def test_queries_of_offsets_are_answered_after_a_leader_has_moved(kafka_cluster, config):
    async def ask() -> None:
        async with contextlib.aclosing(_Closing(OffsetQueries(config))) as open_queries:
            queries = open_queries.queries
            expected = dict.fromkeys(ALL, 0)
            assert await queries.begins(ALL) == expected
            await asyncio.to_thread(move_leaders, kafka_cluster, kafka_cluster.leader_of(topic, 0))
            assert await asyncio.wait_for(queries.begins(ALL), 40) == expected
            assert await asyncio.wait_for(queries.ends(ALL), 40) == expected
            assert await asyncio.wait_for(queries.committed(ALL), 40) == {}

    topic = topic_name(config, "experiences")
    asyncio.run(ask())


class _Closing:
    def __init__(self, queries: OffsetQueries) -> None:
        self.queries = queries

    async def aclose(self) -> None:
        await self.queries.close()
