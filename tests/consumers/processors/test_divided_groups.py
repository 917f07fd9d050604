"""A group that was released before a processor ended leaves nothing for the next one to wait for.

A committed offset may lie between the events of a group that is already released. The next processor is given only the
rest of that group, so it must know that the group is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import require_kafka_home
from processor_worker import Worker, committed, experience, read_until, wait_for

from infra.broker import BrokerProcess
from infra.kafka_node import KafkaNode
from rft.config import Config
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import ScoredExperience


def send(config, *events: tuple[int, int]) -> None:
    """Publish these (group, sample), each group with two samples."""
    with EventWriter(config, "test") as writer:
        for number, sample in events:
            writer.send("experiences", experience(number, sample, size=2))


def released(events) -> list[tuple[int, int]]:
    return [(one.number, one.sample) for one in (e.record(ScoredExperience).experience for e in events)]


def pass_on(config, start_worker, ending: str) -> str:
    """Let a second worker take over while group 0 is released and group 1 open. Return the second one's log."""
    worker = start_worker(config)
    with EventReader(config, "test", ["ready"]) as reader:
        # Group 1 stays open, so offset 1 is committed: between the events of group 0.
        send(config, (0, 0), (1, 0), (0, 1))
        assert released(read_until(reader, lambda seen: len(seen) >= 2, 20, lambda: worker.log)) == [(0, 0), (0, 1)]
        wait_for(lambda: committed(config) == 1, 10, lambda: worker.log)
        getattr(worker, ending)()
        worker = start_worker(config)
        send(config, (1, 1))
        assert released(read_until(reader, lambda seen: len(seen) >= 2, 20, lambda: worker.log)) == [(1, 0), (1, 1)]
    wait_for(lambda: committed(config) == 4, 15, lambda: worker.log)
    assert worker.stop() == 0, worker.log
    return worker.log


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_the_rest_of_a_released_group_does_not_hold_the_committed_offset(one_partition, start_worker, ending):
    assert "duplicates 1" in pass_on(one_partition, start_worker, ending)


@pytest.fixture
def terse_broker(tmp_path: Path) -> Iterator[str]:
    """A broker that takes less metadata with an offset than ours has."""
    require_kafka_home()
    config = Config.model_validate({"broker": {"kind": "kafka"}})
    node = KafkaNode(config, tmp_path / "kafka", {"offset.metadata.max.bytes": "4"})
    broker = BrokerProcess(node, 0, tmp_path / "broker.log")
    yield broker.start()
    broker.stop()


def wait_for_the_deadline(config, start_worker) -> Worker:
    """Let a second worker take over that is not told that group 0 is released. Return the first one."""
    first = start_worker(config)
    send(config, (0, 0), (1, 0), (0, 1))
    wait_for(lambda: committed(config) == 1, 20, lambda: first.log)
    first.kill()
    second = start_worker(config)
    send(config, (1, 1))
    wait_for(lambda: committed(config) == 4, 30, lambda: second.log)
    assert second.stop() == 0
    assert "1 at deadline" in second.log
    return first


@pytest.mark.kafka
def test_a_broker_that_takes_less_metadata_is_named_and_commits_go_on(terse_broker, make_config, start_worker):
    config = make_config(terse_broker, log={"partitions": 1}, processor={"group_deadline_s": 8.0})
    ensure_topics(config)
    assert "offset.metadata.max.bytes" in wait_for_the_deadline(config, start_worker).log


def test_on_the_embedded_broker_which_keeps_no_metadata_the_rest_waits_for_the_deadline(
    embedded_broker, make_config, start_worker
):
    config = make_config(embedded_broker, log={"partitions": 1}, processor={"group_deadline_s": 8.0})
    ensure_topics(config)
    wait_for_the_deadline(config, start_worker)
