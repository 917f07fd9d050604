"""Events are found at exact offsets on every kind of broker, and what is not there is left out."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator

import pytest
from deleting import delete_before

from rft.config import Config
from rft.log.clients import make_producer
from rft.log.coordinates import LogPosition
from rft.log.exact_reader import NEAR, ExactReader
from rft.log.opening import open_log
from rft.log.topics import ensure_topics, topic_name
from rft.log.writer import EventWriter


def publish(config: Config, count: int) -> None:
    with EventWriter(config, "test") as writer:
        for number in range(count):
            writer.send_bytes("ready", b"%d" % number, key=b"key-%d" % (number % 50))


@pytest.fixture
def reader(any_config: Config) -> Iterator[ExactReader]:
    reader = ExactReader(any_config, "test", "ready")
    yield reader
    reader.close()


def test_near_and_far_events_of_all_partitions_are_found_in_any_order_and_repeatedly(
    any_config: Config, reader: ExactReader
) -> None:
    publish(any_config, 12 * NEAR)
    with open_log(any_config) as view:
        events = {event.position: event for event in view.read("ready")}
    positions = sorted(events)
    rng = random.Random(1)
    far = rng.sample(positions, 20)
    near = positions[100:140]
    for wanted in (far, near, [positions[0], positions[-1]], far[:1], positions):
        assert reader.read(wanted) == {position: events[position] for position in wanted}
    assert reader.read([]) == {}


def test_what_the_log_does_not_hold_is_left_out(any_config: Config, reader: ExactReader) -> None:
    publish(any_config, 100)
    with open_log(any_config) as view:
        ends = view.end_offsets("ready")
    number, end = next((number, end) for number, end in ends.items() if end)
    last, beyond = LogPosition(number, end - 1), [LogPosition(number, end), LogPosition(number, end + 1000)]
    assert list(reader.read([last, *beyond])) == [last]
    assert reader.read(beyond) == {}
    assert (reader.begin_offset(number), reader.end_offset(number)) == (0, end)
    publish(any_config, 100)
    assert beyond[0] in reader.read(beyond), "written since"


def test_events_carry_the_size_limit_and_the_schema_lookup(any_config: Config, reader: ExactReader) -> None:
    publish(any_config, 1)
    with open_log(any_config) as view:
        [first] = view.read("ready")
    [event] = reader.read([first.position]).values()
    assert (event.max_bytes, event.writer_schemas) == (any_config.log.max_message_bytes, first.writer_schemas)


@pytest.mark.kafka
def test_deleted_events_and_transaction_markers_are_left_out(
    kafka_broker: str, make_config: Callable[..., Config]
) -> None:
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    producer = make_producer(config, "transactional", transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    for number in range(6):
        producer.begin_transaction()
        producer.send(topic_name(config, "ready"), value=b"%d" % number, key=b"k")
        producer.commit_transaction()
    producer.close()
    reader = ExactReader(config, "test", "ready")
    everything = [LogPosition(0, offset) for offset in range(12)]
    try:
        assert [position.offset for position in reader.read(everything)] == [0, 2, 4, 6, 8, 10]
        delete_before(config, "ready", 4)
        assert [position.offset for position in reader.read(everything)] == [4, 6, 8, 10]
        assert reader.read(everything[:4]) == {}
        assert reader.begin_offset(0) == 4
    finally:
        reader.close()
