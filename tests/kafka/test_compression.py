"""All our producers compress with the configured codec, and say at their start what must be installed for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import ConfigMaker

from consumers.processors.faust_backend.app import make_app
from rft.config import Config
from rft.errors import ConfigError
from rft.log.reader import EventReader
from rft.log.topic_table import topic_table
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from tests.consumers.processors.processor_worker import experience, read_until

pytestmark = pytest.mark.timeout(180)

TEXT = "a text that says the same again and again, " * 200
GROUPS, SIZE, JUNK = 5, 4, 10


def sizes_on_disk(config: Config) -> dict[str, int]:
    return {row.entity: row.size_bytes or 0 for row in topic_table(config)}


@pytest.mark.kafka
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_events_of_writers_and_processors_are_compressed_on_disk(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[..., Any], codec: str
) -> None:
    """``experiences`` is written by kafka-python, ``ready`` and ``dlq`` by aiokafka."""
    config = make_config(kafka_broker, log={"partitions": 1, "compression": codec})
    ensure_topics(config)
    worker = start_worker(config)
    with EventWriter(config, "test") as writer, EventReader(config, "test", ["ready", "dlq"]) as reader:
        for number in range(GROUPS):
            for sample in range(SIZE):
                writer.send("experiences", experience(number, sample, size=SIZE, response=TEXT))
        for _ in range(JUNK):
            writer.send_bytes("experiences", TEXT.encode(), key=b"k")
        writer.flush()
        read_until(reader, lambda seen: len(seen) >= GROUPS * SIZE + JUNK, 60, lambda: worker.log)
    events = {"experiences": GROUPS * SIZE + JUNK, "ready": GROUPS * SIZE, "dlq": JUNK}
    shares = {entity: sizes_on_disk(config)[entity] / (count * len(TEXT)) for entity, count in events.items()}
    if codec == "none":
        assert all(share > 1 for share in shares.values()), shares
    else:
        assert all(share < 0.5 for share in shares.values()), shares


@pytest.mark.parametrize("codec", ["snappy", "lz4", "zstd"])
def test_a_codec_that_lacks_its_library_is_named_at_the_start_with_what_to_install(
    embedded_broker: str, make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    config = make_config(embedded_broker, log={"compression": codec})
    package = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}[codec]
    monkeypatch.setattr(f"kafka.codec.has_{codec}", lambda: False)
    monkeypatch.setattr("rft.log.codecs.find_spec", lambda _: None)
    began = time.monotonic()
    message = f"log.compression = '{codec}' needs what is not installed: pip install {package} cramjam, or set"
    with pytest.raises(ConfigError, match=message):
        EventWriter(config, "test")
    with pytest.raises(ConfigError, match=message):
        make_app(config, tmp_path)
    assert time.monotonic() - began < 10


def test_gzip_needs_nothing(embedded_broker: str, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rft.log.codecs.find_spec", lambda _: None)
    config = make_config(embedded_broker, log={"compression": "gzip"})
    ensure_topics(config)
    with EventWriter(config, "test") as writer:
        writer.send_bytes("dlq", b"x", key=b"k")
