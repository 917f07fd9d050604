"""Killed with SIGKILL and restarted on the same folder, Apache Kafka loses or doubles nothing acknowledged."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from brokers import require_kafka_home

from infra.broker import BrokerProcess, open_broker
from rft.config import Config
from rft.log.clients import make_consumer
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics, topic_name
from rft.log.writer import EventWriter

pytestmark = pytest.mark.kafka
EVENTS = 4000


@pytest.fixture
def own_node(tmp_path: Path) -> BrokerProcess:
    require_kafka_home()
    broker = open_broker(Config.model_validate({"broker": {"kind": "kafka"}}), tmp_path)
    assert broker is not None
    return broker


def kill_and_restart(broker: BrokerProcess) -> None:
    os.kill(broker.pid, signal.SIGKILL)
    while broker.alive():
        time.sleep(0.01)
    broker.start()


def test_nothing_acknowledged_is_lost_or_doubled_when_the_broker_is_killed(own_node: BrokerProcess) -> None:
    config = Config.model_validate({"broker": {"kind": "external", "bootstrap_servers": own_node.start()}})
    ensure_topics(config)
    half, sent = threading.Event(), threading.Event()
    acknowledged: set[tuple[int, int]] = set()

    def publish() -> None:
        with EventWriter(config, "writer") as writer:
            futures = []
            for n in range(EVENTS):
                futures.append(writer.send_bytes("tasks", f"{n}".encode(), key=f"{n}".encode()))
                if n == EVENTS // 2:
                    half.set()
                time.sleep(0.0003)
            writer.flush()
            acknowledged.update((future.get(0).partition, future.get(0).offset) for future in futures)
        sent.set()

    # A consumer group and a reader that stay connected through the kill.
    group = make_consumer(config, "explorer", f"{config.log.namespace}.explorers")
    group.subscribe([topic_name(config, "tasks")])
    publisher = threading.Thread(target=publish)
    publisher.start()
    values: list[bytes | None] = []
    positions: set[tuple[int, int]] = set()
    with EventReader(config, "reader", ["tasks"]) as reader:
        assert half.wait(30)
        killer = threading.Thread(target=kill_and_restart, args=(own_node,))
        killer.start()
        deadline = time.monotonic() + 60
        taken = 0
        while (len(positions) < EVENTS or taken < EVENTS) and time.monotonic() < deadline:
            for event in reader.poll(0.1):
                values.append(event.value)
                positions.add((event.partition, event.offset))
            taken += sum(len(batch) for batch in group.poll(50).values())
        killer.join()
        publisher.join()
        group.commit()
        group.close()
        assert sent.is_set()
        assert sorted(values, key=lambda v: int(v or b"-1")) == [f"{n}".encode() for n in range(EVENTS)]
        assert positions == acknowledged
        assert taken >= EVENTS

        kill_and_restart(own_node)
        assert ensure_topics(config) == []
        committed = make_consumer(config, "explorer", f"{config.log.namespace}.explorers")
        committed.subscribe([topic_name(config, "tasks")])
        deadline = time.monotonic() + 60
        while not committed.assignment() and time.monotonic() < deadline:
            assert committed.poll(100) == {}
        assert {p.partition: committed.position(p) for p in committed.assignment()} == {
            partition: end for (_, partition), end in reader.end_offsets().items()
        }
        committed.close()
    own_node.stop()
