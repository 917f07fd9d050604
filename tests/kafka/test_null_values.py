"""Tombstones, null headers and events of nothing become dead letters as they came: a null stays a null."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from brokers import ConfigMaker
from foreign_clients import Foreign, send_with_nulls

from producers.explorer.feed import TaskFeed
from rft.config import Config
from rft.errors import DecodeError
from rft.log.clients import message_limit
from rft.log.dead_letters import Stage
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from tests.consumers.processors.processor_worker import read_until, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

NULLS: dict[str, tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]] = {
    "tombstone": (b"k", None, ()),
    "tombstone with a null header": (b"k", None, (("n", None),)),
    "null header": (b"k", b"junk", (("mine", b"1"), ("null", None), ("null", b""), ("null", None))),
    "nothing": (None, None, ()),
    "nothing but a null header": (None, None, (("n", None),)),
    "empty": (b"", b"", (("e", b""),)),
}
"""Key, value and headers by name."""


def as_events(entity: str) -> list[Foreign]:
    return [
        Foreign(entity, key, value, (("name", name.encode()), *headers))
        for name, (key, value, headers) in NULLS.items()
    ]


def untouched(letters: list[Event]) -> dict[str, Any]:
    """Return what the letters hold of the original events, by name."""
    found = {}
    for letter in letters:
        (_, name), *headers = letter.headers
        assert name is not None
        own = tuple(header for header in headers if not header[0].startswith(("rft.error.", "__connect.errors.")))
        found[name.decode()] = (letter.key, letter.value, own)
    return found


@pytest.fixture
def config(kafka_broker: str, make_config: ConfigMaker) -> Config:
    made = make_config(kafka_broker)
    ensure_topics(made)
    return made


def read_letters(config: Config, explain: Callable[[], str], count: int = len(NULLS)) -> list[Event]:
    with EventReader(config, "test", ["dlq"]) as reader:
        return read_until(reader, lambda seen: len(seen) >= count, 30, explain)


@pytest.mark.parametrize("entity", ["experiences", "rewards"])
def test_a_processor_keeps_nulls_in_dead_letters(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[..., Any], entity: str
) -> None:
    config = make_config(kafka_broker, processor={"external": {"required": ["human"]}})
    ensure_topics(config)
    worker = start_worker(config)
    send_with_nulls(config, as_events(entity))
    letters = read_letters(config, lambda: worker.log)
    assert untouched(letters) == NULLS
    assert len(letters) == len(NULLS)
    assert worker.process.poll() is None, worker.log


def test_a_trainer_keeps_nulls_in_dead_letters(config: Config) -> None:
    """What it does with an event of ``ready`` that is not readable: read it, decode it, publish the dead letter."""
    send_with_nulls(config, as_events("ready"))
    with EventReader(config, "test", ["ready"]) as reader, EventWriter(config, "test") as writer:
        for event in read_until(reader, lambda seen: len(seen) >= len(NULLS), 20, str):
            with pytest.raises(DecodeError) as caught:
                event.record()
            writer.publish_dead_letter(event, "decode", caught.value)
    assert untouched(read_letters(config, str)) == NULLS


def test_an_explorer_keeps_nulls_in_dead_letters(config: Config) -> None:
    send_with_nulls(config, as_events("tasks"))
    rejected: list[Event] = []
    with EventWriter(config, "test") as writer:

        def reject(event: Event, stage: Stage, error: DecodeError) -> None:
            writer.publish_dead_letter(event, stage, error)
            rejected.append(event)

        feed = TaskFeed(config, "test", deliver=lambda _: None, saturated=lambda: False, reject=reject)
        feed.start()
        try:
            wait_for(lambda: len(rejected) >= len(NULLS) or feed.error, 20, lambda: f"{rejected}")
        finally:
            feed.close(10)
    assert feed.error is None
    assert untouched(read_letters(config, str)) == NULLS


def test_a_dead_letter_that_is_sent_again_keeps_its_nulls(config: Config) -> None:
    send_with_nulls(config, as_events("tasks"))
    with EventWriter(config, "test") as writer, EventReader(config, "test", ["tasks"]) as reader:
        originals = read_until(reader, lambda seen: len(seen) >= len(NULLS), 20, str)
        for event in originals:
            writer.publish_dead_letter(event, "decode", DecodeError("no frame"))
        writer.flush()
        for letter in read_letters(config, str):
            writer.send_bytes("tasks", letter.value, key=letter.key, headers=letter.headers).get(10)
        again = read_until(reader, lambda seen: len(seen) >= len(NULLS), 20, str)
    assert untouched(again) == NULLS


def test_many_nulls_share_batches_with_other_events(config: Config) -> None:
    """A null in one event changes nothing in the others of its batch, and large events are still refused by size."""
    headers = [("null", None), ("empty", b"")]
    with EventWriter(config, "test", linger_ms=100) as writer:
        for number in range(200):
            writer.send_bytes("dlq", None if number % 2 else b"v%d" % number, key=None, headers=headers, partition=0)
        large = Event("tasks", 0, 7, 1, b"k", b"x" * message_limit(config.log), (("null", None),))
        writer.publish_dead_letter(large, "decode", DecodeError("no frame"))
    with EventReader(config, "test", ["dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 201, 20, str)
    values = [event.value for event in events if event.key is None]
    assert values == [None if number % 2 else b"v%d" % number for number in range(200)]
    assert all(event.headers == tuple(headers) for event in events if event.key is None)
    (omitted,) = (event for event in events if event.key is not None)
    assert (omitted.value, omitted.headers[0]) == (None, ("null", None))


def test_the_embedded_broker_keeps_nulls_too(log_config: Config) -> None:
    with EventWriter(log_config, "test") as writer:
        for event in as_events("dlq"):
            writer.send_bytes("dlq", event.value, key=event.key, headers=event.headers)
    assert untouched(read_letters(log_config, str)) == NULLS
