"""The three-node cluster of the tests does what its methods say."""

from __future__ import annotations

import uuid

import psutil
import pytest
from brokers import require_kafka_home
from kafka import KafkaConsumer, KafkaProducer
from kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture
def topic(kafka_cluster: KafkaCluster) -> str:
    kafka_cluster.start()
    name = f"cluster-{uuid.uuid4().hex[:8]}"
    kafka_cluster.ask(lambda admin: admin.create_topics({name: {"num_partitions": 3, "replication_factor": 3}}))
    kafka_cluster.wait_until_whole()
    return name


def test_each_event_is_on_three_nodes_and_survives_the_death_of_its_leader_and_of_the_controller(kafka_cluster, topic):
    producer = KafkaProducer(bootstrap_servers=kafka_cluster.bootstrap_servers, acks="all")
    assert kafka_cluster.in_sync_replicas(topic, 0) == [1, 2, 3]
    first = producer.send(topic, b"first", partition=0).get(30)
    leader = kafka_cluster.leader_of(topic, 0)
    kafka_cluster.kill(leader)
    kafka_cluster.wait_until(lambda: kafka_cluster.leader_of(topic, 0) not in (leader, -1), 30, "another leader")
    second = producer.send(topic, b"second", partition=0).get(60)
    kafka_cluster.restart(leader)
    kafka_cluster.wait_until_whole()

    controller = kafka_cluster.controller()
    kafka_cluster.terminate(controller)
    assert kafka_cluster.controller() != controller
    kafka_cluster.restart(controller)
    kafka_cluster.wait_until_whole()
    kafka_cluster.change_preferred([topic])
    kafka_cluster.elect_preferred()
    leaders = {one["leader_id"] for one in kafka_cluster.partitions(topic).values()}
    assert leaders == {one["replica_nodes"][0] for one in kafka_cluster.partitions(topic).values()}

    producer.close()
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka_cluster.bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=5000
    )
    found = [(event.offset, event.value) for event in consumer]
    consumer.close()
    assert found == [(first.offset, b"first"), (second.offset, b"second")]


def test_a_paused_follower_leaves_the_replicas_in_sync_and_comes_back(kafka_cluster, topic):
    follower = next(n for n in kafka_cluster.numbers if n != kafka_cluster.leader_of(topic, 0))
    with kafka_cluster.paused(follower):
        kafka_cluster.wait_until(lambda: follower not in kafka_cluster.in_sync_replicas(topic, 0), 30, "it lags")
    kafka_cluster.wait_until_whole()


def test_partitions_are_added_and_a_topic_is_created_again_under_another_id(kafka_cluster, topic):
    kafka_cluster.add_partitions(topic, 5)
    assert len(kafka_cluster.partitions(topic)) == 5
    [before] = kafka_cluster.ask(lambda admin: admin.describe_topics([topic]))
    kafka_cluster.recreate_topic(topic)
    [after] = kafka_cluster.ask(lambda admin: admin.describe_topics([topic]))
    assert len(after["partitions"]) == 5
    assert after["topic_id"] != before["topic_id"]


def test_nodes_start_with_the_classes_that_one_of_them_has_archived(tmp_path):
    cluster = KafkaCluster(require_kafka_home(), tmp_path, nodes=1, archive_classes=True)
    try:
        cluster.start()
        assert (tmp_path / "classes.jsa").stat().st_size > 1 << 20
        cluster.kill(1)
        cluster.start()
        [command] = [words for child in psutil.Process().children() if str(tmp_path) in (words := child.cmdline())[-1]]
        assert f"-XX:SharedArchiveFile={tmp_path / 'classes.jsa'}" in command
        assert "rejected" not in cluster.last_lines(100)
    finally:
        cluster.stop()
