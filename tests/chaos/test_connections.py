"""Clients survive a broken connection: it costs them seconds."""

from __future__ import annotations

import time

import pytest
from brokers import require_kafka_home

from chaos.node import ProxiedCluster
from producers.explorer.feed import TaskFeed
from rft.errors import BrokerError
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import Task

CUT_S = 3.0


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    require_kafka_home()
    node = ProxiedCluster(tmp_path_factory.mktemp("node"))
    node.start()
    yield node
    node.stop()


@pytest.fixture
def config(node, make_config):
    config = make_config(node.servers)
    ensure_topics(config)
    return config


@pytest.fixture
def direct_config(node, config):
    return config.model_copy(
        update={"broker": config.broker.model_copy(update={"bootstrap_servers": node.direct_servers})}
    )


def task(number: int) -> Task:
    return Task(f"train-{number:08d}", number, "train", "s", "p", "a", 1, 1, 1.0, 1.0, 0, 0, 0)


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_readers_and_explorers_go_on_after_their_connections_were_cut(node, config, direct_config):
    delivered: list[int] = []
    feed = TaskFeed(
        config,
        "explorer-test",
        deliver=lambda deliveries: delivered.extend(delivery.task.number for delivery in deliveries),
        saturated=lambda: False,
        reject=lambda message, error: None,
    )
    feed.start()
    read: list[int] = []

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 50
        while len(read) < count or len(set(delivered)) < count:
            assert feed.error is None
            assert time.monotonic() < deadline, (len(read), len(delivered))
            read.extend(event.record().number for event in reader.poll(0.1))

    try:
        with EventReader(config, "reader", ["tasks"]) as reader, EventWriter(direct_config, "writer") as writer:
            for number in range(10):
                writer.send("tasks", task(number))
            wait_for(10)
            assert node.proxies[0].cut() > 0
            ends = time.monotonic() + CUT_S
            while time.monotonic() < ends:
                assert reader.poll(0.1) == []
            node.proxies[0].restore()
            for number in range(10, 20):
                writer.send("tasks", task(number))
            wait_for(20)
            assert sorted(read) == list(range(20))
    finally:
        feed.close(10)
    assert feed.error is None


@pytest.mark.kafka
def test_closing_a_writer_whose_broker_is_silent_hides_no_other_error(node, config):
    writer = EventWriter(config, "writer")
    writer.send("tasks", task(0))
    writer.flush()
    node.proxies[0].drop(1.0, 0)
    try:
        writer.send("tasks", task(0))
        with pytest.raises(BrokerError, match="not acknowledged within"):
            writer.flush(1.0)
        writer.close(timeout_s=1.0)
    finally:
        node.proxies[0].restore()
        writer.close()  # kafka-python ends the producer's thread only when all events are sent
