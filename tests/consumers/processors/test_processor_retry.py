"""Dead letters that are sent again through a real processor pass if they are good by now, and never loop."""

from __future__ import annotations

import time

from kafka import KafkaProducer
from kafka.serializer import Serializer
from processor_worker import committed, experience, read_until, wait_for

from rft.log.dead_letter_actions import read_dead_letters, retry
from rft.log.dead_letters import dead_letter_headers
from rft.log.live_view import LiveView
from rft.log.reader import EventReader
from rft.log.topics import topic_name
from rft.log.writer import EventWriter
from schemas.codec import encode
from schemas.events import ScoredExperience


class NoKey(Serializer):
    """Drops the key, after kafka-python has checked that there is one."""

    def serialize(self, topic, headers, data):
        return None


def letters_of(config):
    with LiveView(config) as view:
        return read_dead_letters(view).open()


def test_an_event_that_fails_again_is_one_new_letter_that_keeps_the_first_failure(any_config, start_worker):
    worker = start_worker(any_config)
    with EventWriter(any_config, "test") as writer:
        writer.send_bytes("experiences", b"garbage", key=b"k", headers=[("mine", b"1")])
    wait_for(lambda: letters_of(any_config), 20, lambda: worker.log)
    [first] = letters_of(any_config)
    assert first.attempt == 1
    latest = first
    for attempt in (2, 3):
        with LiveView(any_config) as view:
            assert retry(any_config, view, [latest], 5, lambda done, total: None).done == 1
        wait_for(lambda: letters_of(any_config), 20, lambda: worker.log)
        time.sleep(1)
        [latest] = letters_of(any_config)
        assert latest.attempt == attempt
        assert latest.first_failure_ms == first.first_failure_ms
        assert latest.position != first.position
    with LiveView(any_config) as view:
        assert len(read_dead_letters(view).all()) == 3
        event = view.fetch("dlq", *latest.position)
        assert (event.key, event.value, event.headers[0]) == (b"k", b"garbage", ("mine", b"1"))
        kept = retry(any_config, view, [latest], 3, lambda done, total: None)
    assert (kept.done, list(kept.left_open)) == (0, [latest.name])


def test_an_event_that_is_good_by_now_passes(log_config, start_worker):
    worker = start_worker(log_config)
    with EventWriter(log_config, "test") as writer:
        for sample in range(4):
            headers = dead_letter_headers(
                [],
                stage="decode",
                error=ValueError("unknown schema fingerprint"),
                topic=topic_name(log_config, "experiences"),
                partition=0,
                offset=sample,
                now_ms=1,
            )
            writer.send_bytes("dlq", encode(experience(5, sample)), key=b"train-00000005", headers=headers)
    with LiveView(log_config) as view:
        assert retry(log_config, view, read_dead_letters(view).open(), 5, lambda done, total: None).done == 4
    with EventReader(log_config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 4, 20, lambda: worker.log)
    assert {event.record(ScoredExperience).verdict for event in events} == {"train"}
    assert letters_of(log_config) == []


def test_an_event_with_neither_key_nor_value_is_a_dead_letter_and_ends_nothing(log_config, start_worker):
    worker = start_worker(log_config)
    # kafka-python refuses such an event, but Java's client writes it.
    topic = topic_name(log_config, "experiences")
    producer = KafkaProducer(bootstrap_servers=log_config.broker.bootstrap_servers, key_serializer=NoKey())
    producer.send(topic, key=b"dropped by its serializer", value=None, partition=0).get(10)
    producer.close()
    wait_for(lambda: letters_of(log_config), 20, lambda: worker.log)
    [letter] = letters_of(log_config)
    assert (letter.stage, letter.key) == ("decode", None)
    wait_for(lambda: committed(log_config) == 1, 10, lambda: worker.log)
    assert worker.process.poll() is None
