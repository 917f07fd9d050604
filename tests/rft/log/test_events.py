"""Events survive the trip through a real log: bytes, keys, headers, order and positions."""

from __future__ import annotations

import time

import pytest

from rft.config import Config
from rft.errors import BrokerError, DecodeError, TopicError
from rft.log.clients import message_limit
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.topics import topic_name
from rft.log.writer import EventWriter
from schemas.events import Task, WeightVersion


def task(number: int, prompt: str = "p") -> Task:
    return Task(f"train-{number:08d}", number, "train", "s", prompt, "a", 8, 64, 1.0, 1.0, 0, 0, 1_700_000_000_000)


def read(reader: EventReader, count: int, timeout_s: float = 10.0) -> list[Event]:
    """At least ``count`` events, or what came in time."""
    events: list[Event] = []
    deadline = time.monotonic() + timeout_s
    while len(events) < count and time.monotonic() < deadline:
        events += reader.poll(0.1)
    return events


def test_what_is_written_is_read_back_in_order_for_each_key(any_config: Config) -> None:
    tasks = [task(n) for n in range(200)]
    with EventWriter(any_config, "writer") as writer:
        positions = [writer.send("tasks", t) for t in tasks]
    with EventReader(any_config, "reader", ["tasks"]) as reader:
        events = read(reader, len(tasks))
    assert sorted(e.record(Task).number for e in events) == list(range(200))
    assert {(e.partition, e.offset) for e in events} == {(p.get(0).partition, p.get(0).offset) for p in positions}
    assert len({e.partition for e in events}) == any_config.log.partitions
    for partition in range(any_config.log.partitions):
        numbers = [e.record(Task).number for e in events if e.partition == partition]
        assert numbers == sorted(numbers)


def test_the_key_decides_the_partition_as_in_java(log_config: Config) -> None:
    with EventWriter(log_config, "writer") as writer:
        position = writer.send("tasks", task(21)).get(5)
    # org.apache.kafka.common.utils.Utils.murmur2("train-00000021") & 0x7fffffff, modulo 4
    assert position.partition == 0x7FFFFFFF & _murmur2(b"train-00000021") & 3


def _murmur2(data: bytes) -> int:
    """Transcribed from Kafka's Utils.murmur2."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    for i in range(0, len(data) - len(data) % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ (k >> 24)) * m & mask)
    tail = data[len(data) - len(data) % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def test_events_carry_cloudevents_headers_and_those_of_the_caller(log_config: Config) -> None:
    with EventWriter(log_config, "conductor-1") as writer:
        writer.send("tasks", task(3), headers=[("traceparent", b"00-1-2-01")])
    with EventReader(log_config, "reader", ["tasks"]) as reader:
        (event,) = read(reader, 1)
    headers = dict(event.headers)
    assert event.key == b"train-00000003"
    assert headers["ce_id"] == b"train-00000003"
    assert headers["ce_source"] == b"conductor-1"
    assert headers["ce_type"] == b"stream_rft.Task"
    assert headers["content-type"] == b"application/avro"
    assert headers["traceparent"] == b"00-1-2-01"
    assert (headers["ce_time"] or b"").endswith(b"Z")


def test_a_reader_continues_from_saved_positions(any_config: Config) -> None:
    with EventWriter(any_config, "writer") as writer:
        for n in range(50):
            writer.send("tasks", task(n))
        writer.flush()
        with EventReader(any_config, "reader", ["tasks", "weights"]) as reader:
            first = read(reader, 50)
            saved = reader.positions
        for n in range(50, 80):
            writer.send("tasks", task(n))
    with EventReader(any_config, "reader", ["tasks", "weights"], positions=saved) as reader:
        second = read(reader, 30)
        assert reader.positions == reader.end_offsets()
        assert reader.caught_up(reader.end_offsets())
    assert sorted(e.record(Task).number for e in first) == list(range(50))
    assert sorted(e.record(Task).number for e in second) == list(range(50, 80))


def test_a_reader_from_the_end_sees_only_later_events(any_config: Config) -> None:
    with EventWriter(any_config, "writer") as writer:
        writer.send("tasks", task(1))
        writer.flush()
        with EventReader(any_config, "reader", ["tasks"], from_end=True) as reader:
            writer.send("tasks", task(2))
            writer.flush()
            assert [e.record(Task).number for e in read(reader, 1)] == [2]


def test_seek_fetches_one_event_again(any_config: Config) -> None:
    with EventWriter(any_config, "writer") as writer:
        position = [writer.send("tasks", task(n)) for n in range(40)][17].get(5)
    with EventReader(any_config, "reader", ["tasks"]) as reader:
        read(reader, 40)
        reader.seek("tasks", position.partition, position.offset)
        again = read(reader, 1)
    assert again[0].record(Task).number == 17
    assert (again[0].partition, again[0].offset) == (position.partition, position.offset)


def test_a_paused_topic_waits_and_loses_nothing(any_config: Config) -> None:
    weights = WeightVersion("policy", 0, 0, "checkpoint", "weights/v0", "00", 1, False, 1)
    with EventWriter(any_config, "writer") as writer, EventReader(any_config, "reader", ["tasks", "weights"]) as reader:
        reader.pause("tasks")
        for n in range(10):
            writer.send("tasks", task(n))
        writer.send("weights", weights)
        writer.flush()
        assert [e.entity for e in read(reader, 2, timeout_s=0.7)] == ["weights"]
        reader.resume("tasks")
        assert sorted(e.record(Task).number for e in read(reader, 10)) == list(range(10))


def test_a_resumed_partition_continues_although_others_were_read_meanwhile(any_config: Config) -> None:
    with EventWriter(any_config, "writer") as writer:
        for n in range(1000):
            writer.send("tasks", task(n))
    with EventReader(any_config, "reader", ["tasks"]) as reader:
        [first] = read_one(reader)
        reader.pause("tasks", first.partition)
        others = read(reader, 1000, timeout_s=3.0)
        assert first.partition not in {event.partition for event in others}
        reader.resume("tasks", first.partition)
        rest = read(reader, 1000 - 1 - len(others))
    offsets = [event.offset for event in [first, *rest]]
    assert offsets == list(range(len(offsets)))
    assert len(offsets) + len(others) == 1000


def read_one(reader: EventReader) -> list[Event]:
    while not (events := reader.poll(0.1, max_events=1)):
        pass
    return events


def test_four_mebibytes_are_sent_and_more_is_refused_before_sending(any_config: Config) -> None:
    limit = any_config.log.max_message_bytes
    with EventWriter(any_config, "writer") as writer:
        writer.send("tasks", task(1, prompt="x" * (limit - 200)))
        with pytest.raises(BrokerError, match=r"larger than log\.max_message_bytes"):
            writer.send("tasks", task(2, prompt="x" * limit))
        writer.send("tasks", task(3))
    with EventReader(any_config, "reader", ["tasks"]) as reader:
        assert sorted(e.record(Task).number for e in read(reader, 2)) == [1, 3]


def test_a_reader_receives_and_names_another_clients_event_of_nearly_twice_the_limit(any_config: Config) -> None:
    with EventWriter(any_config, "stranger") as writer:
        writer.send_bytes("experiences", b"\0" * 8_300_000, key=b"g")
        writer.send_bytes("experiences", b"next", key=b"g")
    with EventReader(any_config, "reader", ["experiences"]) as reader:
        big, following = read(reader, 2)
    assert len(big.value or b"") == 8_300_000
    with pytest.raises(DecodeError, match="8300000 bytes"):
        big.record()
    assert following.value == b"next"


def test_one_refused_event_does_not_end_the_writer(any_config: Config) -> None:
    with EventWriter(any_config, "writer") as writer:
        with pytest.raises(BrokerError, match="cannot publish"):
            writer.send_bytes("dlq", b"\0" * 40_000_000, key=None)
        writer.send("tasks", task(1))
        writer.flush()


def test_events_with_nulls_are_passed_on_unchanged(log_config: Config) -> None:
    with EventWriter(log_config, "writer") as writer:
        writer.send_bytes("dlq", None, key=None, headers=[("empty", None), ("full", b"x")])
    with EventReader(log_config, "reader", ["dlq"]) as reader:
        (event,) = read(reader, 1)
    assert (event.key, event.value, event.headers) == (None, None, (("empty", None), ("full", b"x")))


def test_positions_of_another_log_are_refused(any_config: Config) -> None:
    with pytest.raises(BrokerError, match="the log ends at 0"):
        EventReader(any_config, "reader", ["tasks"], positions={("tasks", 0): 7})


def test_a_missing_topic_is_named(embedded_broker: str, make_config: object) -> None:
    config = make_config(embedded_broker)  # type: ignore[operator]
    with pytest.raises(TopicError, match=rf"topic {config.log.namespace}\.tasks\.v1 does not exist"):
        EventReader(config, "reader", ["tasks"])


def test_a_record_of_another_entity_is_not_published(log_config: Config) -> None:
    with EventWriter(log_config, "writer") as writer, pytest.raises(TypeError, match="does not take Task"):
        writer.send("weights", task(1))


def test_a_dead_letter_keeps_its_event_and_loses_its_value_only_if_it_is_too_large(log_config: Config) -> None:
    large = b"x" * message_limit(log_config.log)
    with EventWriter(log_config, "writer") as writer:
        for value in (b"garbage", large):
            event = Event("tasks", 3, 17, 1, b"key", value, (("mine", b"1"),))
            writer.publish_dead_letter(event, "decode", DecodeError("no frame"))
    with EventReader(log_config, "reader", ["dlq"]) as reader:
        small, without_value = read(reader, 2)
    assert (small.key, small.value, small.headers[0]) == (b"key", b"garbage", ("mine", b"1"))
    assert dict(small.headers)["rft.error.topic"] == topic_name(log_config, "tasks").encode()
    assert (without_value.key, without_value.value or b"") == (b"key", b"")
    assert dict(without_value.headers)["rft.error.value-omitted"] == str(len(large)).encode()
