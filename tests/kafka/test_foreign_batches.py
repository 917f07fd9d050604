"""Batches that other clients may write and that our libraries refuse: header names that are no UTF-8."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from brokers import ConfigMaker
from foreign_clients import foreign_producer
from kafka.errors import KafkaError
from kafka.record import default_records

from rft.config import Config
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics, topic_name
from schemas.codec import encode
from tests.consumers.processors.processor_worker import Worker, committed, experience, read_until, wait_for
from tests.kafka.junk import letters_of
from tests.producers.roles import Log

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
NAME = b"caf\xe9"
"""Latin-1, as a client without care for encodings writes it."""
SHOWN = "caf\\xe9"
CODECS = (None, "gzip", "zstd")


class LatinName(str):
    """A header name that is written as :data:`NAME`."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return NAME


def send(config: Config, codec: str | None) -> list[bytes]:
    """Write a good event, one with such a header, one that is no record, and a good one, in one batch."""
    one, two, three = (experience(0, sample, size=3) for sample in range(3))
    values = [encode(one), encode(two), b"junk", encode(three)]
    headers = [[], [(LatinName("x"), b"1"), ("plain", b"2")], [(LatinName("x"), b"3")], []]
    topic = topic_name(config, "experiences")
    with foreign_producer(config, compression_type=codec, linger_ms=200) as producer:
        sent = [
            producer.send(topic, key=one.group_id.encode(), value=value, headers=names)
            for value, names in zip(values, headers, strict=True)
        ]
        producer.flush()
        assert [future.get(10).offset for future in sent] == [0, 1, 2, 3]
    return values


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_name_that_is_no_utf_8_stops_no_reader(
    kafka_broker: str, make_config: ConfigMaker, codec: str | None
) -> None:
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    values = send(config, codec)
    with EventReader(config, "test", ["experiences"]) as reader:
        read = read_until(reader, lambda seen: len(seen) >= 4, 10, str)
    assert [(event.offset, event.value) for event in read] == list(enumerate(values))
    assert read[1].headers == ((SHOWN, b"1"), ("plain", b"2"))


def test_a_header_name_that_is_no_utf_8_stops_no_processor(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[[Config], Worker]
) -> None:
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    worker = start_worker(config)
    send(config, "zstd")
    wait_for(lambda: committed(config) == 4 or worker.process.poll() is not None, 30, lambda: worker.log)
    assert worker.stop() == 0, worker.log
    with Log(config, "ready") as log:
        found = log.wait("ready", lambda found: len(found) >= 3, 20)
    assert sorted(one.experience.sample for one in found) == [0, 1, 2]
    [letter] = letters_of(config, "experiences")
    assert letter.value == b"junk"
    assert (SHOWN, b"3") in letter.headers


def test_the_broker_refuses_a_batch_whose_content_cannot_be_read(
    kafka_broker: str, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So none can be on the log, unless its disk is damaged."""
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    monkeypatch.setattr(default_records, "zstd_encode", lambda payload: b"garbage " * 20)
    with foreign_producer(
        config, compression_type="zstd", request_timeout_ms=3000, delivery_timeout_ms=6000
    ) as producer:
        future = producer.send(topic_name(config, "experiences"), key=b"k", value=b"x" * 1000)
        with pytest.raises(KafkaError):
            future.get(10)
