"""Topics that others administer: small limits, too few copies. What fits is accepted; what does not is named."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from brokers import ConfigMaker, require_kafka_home
from kafka.admin import ConfigResource, ConfigResourceType
from kafka_cluster import KafkaCluster

from infra.broker import BrokerProcess
from infra.doctor.diagnose import diagnose
from infra.kafka_node import KafkaNode
from rft.config import Config
from rft.errors import DecodeError, TopicError
from rft.log.clients import make_admin
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES, ensure_topics, topic_name, topic_settings
from rft.log.writer import EventWriter
from schemas.events import Task

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

MIB = 1024 * 1024
POLICY = """
import java.util.Map;
import org.apache.kafka.common.errors.PolicyViolationException;
public class EightMiB implements org.apache.kafka.server.policy.CreateTopicPolicy {
    public void configure(Map<String, ?> settings) {}
    public void close() {}
    public void validate(RequestMetadata topic) {
        String asked = topic.configs().get("max.message.bytes");
        if (asked != null && Long.parseLong(asked) > 8388608L)
            throw new PolicyViolationException("max.message.bytes must be at most 8388608");
    }
}
"""


@pytest.fixture(scope="module")
def limited_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a node that refuses topics with a message limit above 8 MiB, as managed clusters do."""
    home = require_kafka_home()
    if shutil.which("javac") is None:
        pytest.skip("no javac to compile the cluster's policy with")
    folder = tmp_path_factory.mktemp("limited")
    (folder / "EightMiB.java").write_text(POLICY)
    subprocess.run(["javac", "-proc:none", "-cp", f"{home}/libs/*", "-d", folder, folder / "EightMiB.java"], check=True)
    config = Config.model_validate({"broker": {"kind": "kafka"}})
    settings = {"create.topic.policy.class.name": "EightMiB"}
    node = KafkaNode(config, folder / "kafka", settings, classpath=[folder])
    broker = BrokerProcess(node, 0, folder / "broker.log")
    yield broker.start()
    broker.stop()


def create(config: Config, entity: str, copies: int = 1, **settings: Any) -> None:
    """Create a topic as its administrators do, with their settings instead of ours."""
    admin = make_admin(config, "administrators")
    try:
        configs = topic_settings(config.log, entity) | {
            name.replace("_", "."): str(settings[name]) for name in settings
        }
        partitions = ENTITIES[entity].partitions(config.log)
        topic = {"num_partitions": partitions, "replication_factor": copies, "configs": configs}
        admin.create_topics({topic_name(config, entity): topic})
    finally:
        admin.close()


def settings_of(config: Config, entity: str) -> dict[str, str]:
    """Return a topic's settings. A node that does not know a new topic yet answers without any, and is asked again."""
    admin = make_admin(config, "test")
    try:
        name = topic_name(config, entity)
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        deadline = time.monotonic() + 30
        while not (found := admin.describe_configs([resource], config_filter="all")["topic"][name]):
            assert time.monotonic() < deadline, f"no node knows the settings of {name}"
            time.sleep(0.1)
        return {key: entry["value"] for key, entry in found.items()}
    finally:
        admin.close()


def task(size: int) -> Task:
    return Task("g", 0, "train", "s", "x" * size, None, 1, 1, 1.0, 1.0, 0, 0, 0)


def test_a_cluster_that_allows_8_mib_takes_our_topics_and_our_largest_event(
    limited_cluster: str, make_config: ConfigMaker
) -> None:
    config = make_config(limited_cluster)
    assert len(ensure_topics(config)) == len(ENTITIES)
    with EventWriter(config, "test") as writer:
        writer.send("tasks", task(config.log.max_message_bytes - 200))
    with EventReader(config, "test", ["tasks"]) as reader:
        while not (events := reader.poll(0.2)):
            pass
    assert len(events[0].value or b"") > 4 * MIB - 200


def test_a_refused_topic_names_what_the_cluster_says_and_the_setting_that_its_limit_follows(
    limited_cluster: str, make_config: ConfigMaker
) -> None:
    with pytest.raises(TopicError, match=r"at most 8388608\).*set log\.max_message_bytes to half of its limit"):
        ensure_topics(make_config(limited_cluster, log={"max_message_bytes": 5 * MIB}))


def test_smaller_topics_are_accepted_when_events_fit_and_otherwise_the_fitting_setting_is_named(
    kafka_broker: str, make_config: ConfigMaker
) -> None:
    config = make_config(kafka_broker)
    for entity in ENTITIES:
        create(config, entity, max_message_bytes=5 * MIB)
    assert ensure_topics(config) == []
    larger = make_config(kafka_broker, log={"namespace": config.log.namespace, "max_message_bytes": 8 * MIB})
    with pytest.raises(TopicError, match=rf"set log\.max_message_bytes to at most {5 * MIB - 65536}, or use"):
        ensure_topics(larger)
    fitting = make_config(kafka_broker, log={"namespace": config.log.namespace, "max_message_bytes": 5 * MIB - 65536})
    assert ensure_topics(fitting) == []


def test_a_dead_letter_that_a_small_topic_would_refuse_loses_its_value_and_does_not_end_the_writer(
    kafka_broker: str, make_config: ConfigMaker
) -> None:
    config = make_config(kafka_broker)
    create(config, "dlq", max_message_bytes=5 * MIB)
    ensure_topics(config)
    with EventWriter(config, "test") as writer:
        for size in (6 * MIB, 9, 5 * MIB - 10_000):
            event = Event("tasks", 0, size, 1, b"key", b"x" * size, ())
            writer.publish_dead_letter(event, "decode", DecodeError("no frame"))
            writer.flush()
    found: list[Event] = []
    with EventReader(config, "test", ["dlq"]) as reader:
        while len(found) < 3:
            found += reader.poll(0.2)
    assert [len(event.value or b"") for event in found] == [0, 9, 5 * MIB - 10_000]
    assert dict(found[0].headers)["rft.error.value-omitted"] == str(6 * MIB).encode()


def test_three_copies_are_created_so_that_an_acknowledged_event_is_on_two_brokers(
    kafka_cluster: KafkaCluster, make_config: ConfigMaker
) -> None:
    kafka_cluster.start()
    config = make_config(kafka_cluster.bootstrap_servers, log={"replication_factor": 3, "partitions": 1})
    ensure_topics(config)
    for entity in ENTITIES:
        settings = settings_of(config, entity)
        assert settings["min.insync.replicas"] == "2", entity
        assert settings["unclean.leader.election.enable"] == "false", entity
        [partition] = kafka_cluster.partitions(topic_name(config, entity)).values()
        assert len(partition["replica_nodes"]) == 3
    assert ensure_topics(config) == []


def test_topics_that_not_every_node_knows_yet_are_waited_for(
    kafka_cluster: KafkaCluster, make_config: ConfigMaker
) -> None:
    """Each call may ask another node, and the nodes follow the controller. Without the wait, one of 20 failed."""
    kafka_cluster.start()
    for _ in range(30):
        log = {"namespace": f"new-{uuid4().hex}", "replication_factor": 3, "partitions": 1}
        assert len(ensure_topics(make_config(kafka_cluster.bootstrap_servers, log=log))) == len(ENTITIES)


@pytest.mark.parametrize(
    ("log", "settings", "message"),
    [
        (
            {"replication_factor": 3},
            {},
            r"ready\.v1: replication factor is 1, expected 3; raise it with kafka-reassign-partitions\.sh, "
            r"set log\.replication_factor = 1, or",
        ),
        (
            {"replication_factor": 3},
            {},
            r"ready\.v1: min\.insync\.replicas is 1, expected 2; run kafka-configs\.sh .*"
            r"--add-config min\.insync\.replicas=2, set log\.min_insync_replicas = 1, or",
        ),
        (
            {},
            {"min_insync_replicas": 2},
            r"ready\.v1: min\.insync\.replicas is 2, but there are only 1 copies: nothing can be written",
        ),
        (
            {},
            {"unclean_leader_election_enable": "true"},
            r"ready\.v1: unclean\.leader\.election\.enable is true, expected false; run kafka-configs\.sh",
        ),
    ],
)
def test_topics_that_cannot_keep_what_they_acknowledge_are_named_at_start_and_by_the_doctor(
    kafka_broker: str,
    make_config: ConfigMaker,
    tmp_path: Path,
    log: dict[str, int],
    settings: dict[str, object],
    message: str,
) -> None:
    before = make_config(kafka_broker)
    for entity in ENTITIES:
        create(before, entity, **settings)
    config = make_config(
        kafka_broker, log={"namespace": before.log.namespace, **log}, run={"folder": tmp_path},
        policy={"model": str(tmp_path / "none")},
    )  # fmt: skip
    with pytest.raises(TopicError, match=message):
        ensure_topics(config)
    found = [f"{finding.what}; {finding.advice}" for finding in diagnose(config) if finding.level == "fail"]
    assert any(re.search(message, line) for line in found), found


def test_the_choices_that_an_error_names_are_accepted(kafka_broker: str, make_config: ConfigMaker) -> None:
    config = make_config(kafka_broker)
    ensure_topics(config)
    weaker = {"namespace": config.log.namespace, "replication_factor": 1, "min_insync_replicas": 1}
    assert ensure_topics(make_config(kafka_broker, log=weaker)) == []


@pytest.mark.parametrize(("copies", "needed"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_an_acknowledged_event_is_on_half_of_the_copies(copies: int, needed: int) -> None:
    config = Config.model_validate({"log": {"replication_factor": copies}})
    assert topic_settings(config.log, "ready")["min.insync.replicas"] == str(needed)


def test_more_copies_cannot_be_needed_than_there_are() -> None:
    with pytest.raises(ValueError, match="min_insync_replicas is 2, but replication_factor is only 1"):
        Config.model_validate({"log": {"min_insync_replicas": 2}})
