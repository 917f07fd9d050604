"""A processor stops when retention deletes events that it has not read, or that wait for rewards."""

from __future__ import annotations

import signal

import pytest
from deleting import delete_before, skipping
from processor_worker import committed, publish, read_until, wait_for

from producers.rewards import RewardProducer
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
SIZE = 2


def failure_line(worker) -> str:
    """Wait until the worker fails, and return the last line of its log."""
    assert worker.process.wait(60) == 1, worker.log
    return worker.log.splitlines()[-1]


def test_experiences_deleted_while_no_processor_ran_are_named_and_can_be_skipped(one_partition, start_worker):
    config = one_partition
    publish(config, 0, 1, size=SIZE)
    worker = start_worker(config)
    wait_for(lambda: committed(config) == 4, 20, lambda: worker.log)
    assert worker.stop() == 0
    publish(config, 2, 3, 4, size=SIZE)
    delete_before(config, "experiences", 8)
    line = failure_line(start_worker(config, ready=False))
    assert "MissingRangeError: the log: experiences, partition 0: offsets 4 to 7 are missing" in line
    assert "log.skip_deleted = true" in line
    assert committed(config) == 4, "nothing may count as read"

    worker = start_worker(skipping(config))
    with EventReader(config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: {e.key for e in seen} >= {b"train-00000004"}, 30, lambda: worker.log)
    assert {event.key for event in events} == {b"train-00000000", b"train-00000001", b"train-00000004"}
    wait_for(lambda: committed(config) == 10, 20, lambda: worker.log)
    assert "going on without what is missing" in worker.log


def test_experiences_deleted_while_a_processor_stood_still_are_named(one_partition, start_worker):
    config = one_partition
    publish(config, 0, size=SIZE)
    worker = start_worker(config)
    wait_for(lambda: committed(config) == 2, 20, lambda: worker.log)
    worker.process.send_signal(signal.SIGSTOP)
    publish(config, *range(1, 6), size=SIZE)
    delete_before(config, "experiences", 7)
    worker.process.send_signal(signal.SIGCONT)
    assert "experiences, partition 0: offsets 2 to 6 are missing" in failure_line(worker)
    assert committed(config) == 2


def test_experiences_deleted_while_they_waited_for_rewards_are_named(kafka_broker, make_config, start_worker):
    processor = {"external": {"required": ["human"]}, "rewards": [], "buffer_mb": 0.000001}
    config = make_config(kafka_broker, log={"partitions": 1}, processor=processor)
    ensure_topics(config)
    publish(config, 0, 1, size=SIZE)
    worker = start_worker(config)
    wait_for(lambda: committed(config) == 4, 20, lambda: worker.log)
    delete_before(config, "experiences", 2)
    with RewardProducer(config) as rewards:
        for sample in range(SIZE):
            rewards.send(f"train-00000000/{sample}", 1.0, source="human")
    line = failure_line(worker)
    assert "MissingRangeError: the log: experiences, partition 0: offsets 0 to 1 are missing" in line
    assert "2 experiences that waited for rewards" in line
    assert "processor.external.skip_deleted = true" in line
