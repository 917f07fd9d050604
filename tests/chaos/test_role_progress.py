"""A consumer group that commits nothing while events wait is found, and one that waits for nothing is not."""

from __future__ import annotations

import uuid

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from chaos.progress import Lane, Progress, StallDetector, Standing
from rft.log.topics import consumer_group, ensure_topics, topic_name

LANE = Lane("processors", "t", 0)


def stalls(*observed: tuple[float, int, int]) -> list[float]:
    detector = StallDetector(stall_s=10)
    found = []
    for now, committed, end in observed:
        found += [now for _ in detector.observe(now, {LANE: Standing(committed, end)})]
    return found


def test_standing_still_beside_lag_is_a_stall_and_noted_again_only_after_as_long_again():
    assert stalls(*((now, 5, 9) for now in range(31))) == [11, 22]


def test_a_group_that_moves_or_has_nothing_to_read_does_not_stall():
    assert stalls((0, 5, 9), (9, 6, 20), (18, 7, 40), (27, 8, 80)) == []
    assert stalls((0, 5, 5), (50, 5, 5), (60, 5, 9), (65, 5, 9)) == []


def test_the_time_of_an_outage_is_no_stall():
    detector = StallDetector(stall_s=10)
    detector.observe(0, {LANE: Standing(5, 9)})
    detector.forgive()
    assert detector.observe(100, {LANE: Standing(5, 9)}) == []
    assert len(detector.observe(111, {LANE: Standing(5, 9)})) == 1


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_lag_is_what_a_reader_of_committed_events_could_still_read(kafka_broker, make_config):
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    topic = topic_name(config, "tasks")
    producer = KafkaProducer(bootstrap_servers=kafka_broker, transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    for commit in (True, True, False):
        producer.begin_transaction()
        producer.send(topic, b"event").get(30)
        producer.commit_transaction() if commit else producer.abort_transaction()
    producer.close()
    lane = Lane("explorers", topic, 0)
    progress = Progress(config)
    progress.start()
    try:
        ends = until(progress.ends)
        assert ends[lane] == 6  # three events, each with its marker
        assert lane in progress.behind(ends)
        member = KafkaConsumer(bootstrap_servers=kafka_broker, group_id=consumer_group(config, "explorers"))
        member.assign([TopicPartition(topic, 0)])
        member.commit({TopicPartition(topic, 0): OffsetAndMetadata(2, "", -1)})
        until(progress.ends)
        assert lane in progress.behind(ends)
        member.commit({TopicPartition(topic, 0): OffsetAndMetadata(3, "", -1)})
        member.close()
        # Behind the second event are only markers and what was aborted.
        until(lambda: progress.ends() is not None and lane not in progress.behind(ends))
    finally:
        progress.stop()


def until(ask):
    for _ in range(10):
        if found := ask():
            return found
    raise AssertionError("no answer")
