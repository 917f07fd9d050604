"""A processor waits for a broker that is away for longer than its clients' timeouts, and goes on when it is back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from broker_outages import OwnNode
from processor_worker import committed, experience, publish, read_until, wait_for

from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import Reward, ScoredExperience

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

SHORT_TIMEOUTS = """
from consumers.processors.faust_backend import app
app.PRODUCE_S = 1.0
from consumers.processors import role
role.SUMMARY_S = 0.5
"""
"""With these the outages of the tests are longer than the time in which a client's request must be answered."""


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[OwnNode]:
    node = OwnNode(tmp_path_factory.mktemp("node"))
    yield node
    node.stop()


def test_what_cannot_be_written_during_an_outage_is_written_after_it_by_the_same_process(
    node, make_config, start_worker
):
    config = make_config(node.servers, log={"partitions": 1}, processor={"group_deadline_s": 4.0})
    ensure_topics(config)
    publish(config, 0)
    worker = start_worker(config, before=SHORT_TIMEOUTS)
    wait_for(lambda: committed(config) == 4, 30, lambda: worker.log)
    with EventWriter(config, "test") as writer:
        for number in range(1, 30):
            writer.send("experiences", experience(number, 0))
    wait_for(lambda: "open groups 29" in worker.log or worker.process.poll() is not None, 30, lambda: worker.log)
    with node.away():
        time.sleep(10)  # the deadlines of the groups pass, and several requests could have been answered
        assert worker.process.poll() is None, worker.log
    publish(config, 30)
    with EventReader(config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: len(ids(seen)) == 4 + 29 + 4, 60, lambda: worker.log)
    assert len(ids(events)) == 37
    wait_for(lambda: committed(config) == 4 + 29 + 4, 30, lambda: worker.log)
    assert worker.process.poll() is None, worker.log
    assert worker.stop() == 0, worker.log


def test_a_processor_that_is_asked_to_stop_while_the_broker_is_away_ends_within_half_a_minute(
    node, make_config, start_worker
):
    config = make_config(node.servers, log={"partitions": 1}, processor={"group_deadline_s": 2.0})
    ensure_topics(config)
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        writer.send("experiences", experience(0, 0))
    with EventReader(config, "test", ["ready"]) as reader:
        read_until(reader, lambda seen: len(seen) == 1, 30, lambda: worker.log)
    with node.away():
        time.sleep(3)
        began = time.monotonic()
        worker.stop(40)
        assert time.monotonic() - began < 35, worker.log


SHORT_WATCH = """
from consumers.processors import broker_watch
broker_watch.AWAY_S = 2.0
"""


def test_an_open_group_that_an_outage_outlasts_is_released_whole_after_it(node, make_config, start_worker):
    """What is missing of it could not come, so the group's deadline counts again from the end of the outage."""
    config = make_config(node.servers, log={"partitions": 1}, processor={"group_deadline_s": 12.0})
    ensure_topics(config)
    worker = start_worker(config, before=SHORT_TIMEOUTS + SHORT_WATCH)
    with EventWriter(config, "test") as writer:
        for number in range(5):
            writer.send("experiences", experience(number, 0))
    wait_for(lambda: "open groups 5" in worker.log, 30, lambda: worker.log)
    with node.away():
        time.sleep(20)
    time.sleep(3)  # the deadlines passed long ago, and the rest is published only now
    with EventWriter(config, "test") as writer:
        for number in range(5):
            for sample in range(1, 4):
                writer.send("experiences", experience(number, sample))
    with EventReader(config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: len(ids(seen)) == 20, 60, lambda: worker.log)
    assert {event.record(ScoredExperience).release_size for event in events} == {4}
    assert worker.stop() == 0, worker.log
    assert "(0 at deadline" in worker.log


def test_rewards_that_could_not_come_during_an_outage_still_count_after_it(node, make_config, start_worker):
    external = {"required": ["human"], "deadline_s": 12.0}
    config = make_config(node.servers, log={"partitions": 1}, processor={"external": external, "rewards": []})
    ensure_topics(config)
    worker = start_worker(config, before=SHORT_TIMEOUTS + SHORT_WATCH)
    publish(config, 0, size=2)
    wait_for(lambda: "open groups 1" in worker.log, 30, lambda: worker.log)
    with node.away():
        time.sleep(20)
    time.sleep(3)
    with EventWriter(config, "test") as writer:
        for sample in range(2):
            name = f"train-00000000/{sample}"
            writer.send("rewards", Reward(name, "train-00000000", "human", float(sample), 1, 0))
    with EventReader(config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: len(seen) == 2, 60, lambda: worker.log)
    records = [event.record(ScoredExperience) for event in events]
    assert sorted(one.reward for one in records) == [0.0, 1.0]
    assert {one.verdict for one in records} == {"train"}
    assert worker.stop() == 0, worker.log


def test_a_processor_waits_for_no_longer_than_the_longest_outage_allowed(node, make_config, start_worker):
    config = make_config(node.servers, log={"partitions": 1}, broker={"outage_s": 5.0})
    ensure_topics(config)
    worker = start_worker(config)
    with node.away():
        assert worker.process.wait(60) == 3
    assert "broker.outage_s" in worker.log


def ids(events) -> set[str]:
    return {event.record(ScoredExperience).experience.experience_id for event in events}
