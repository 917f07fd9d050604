"""With a real schema registry, foreign schemas are read, and an outage makes no good event a dead letter."""

from __future__ import annotations

import io
import json
import time

import avro.io
import avro.schema
import pytest
from processor_worker import committed, experience, read_until, wait_for

from rft.log.reader import EventReader
from rft.log.registry import subject_of, writer_ids
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import ScoredExperience
from schemas.load import current
from schemas.registry import RegistryClient
from schemas.wire import to_wire

pytestmark = pytest.mark.registry


def newer_schema(field: str) -> str:
    raw = json.loads(current("Experience").text)
    raw["fields"].append({"name": field, "type": ["null", "string"], "default": None})
    return json.dumps(raw)


def foreign_event(number: int, schema: str, group: int, sample: int, field: str) -> bytes:
    """Return an event in Confluent's framing, encoded by the Avro project's own implementation with another schema."""
    buffer = io.BytesIO()
    values = to_wire(experience(group, sample)) | {field: "x"}
    avro.io.DatumWriter(avro.schema.parse(schema)).write(values, avro.io.BinaryEncoder(buffer))
    return b"\0" + number.to_bytes(4, "big") + buffer.getvalue()


def test_events_of_an_unknown_schema_wait_for_an_unreachable_registry_and_then_pass(
    embedded_broker, make_config, registry, start_worker
):
    config = make_config(embedded_broker, registry={"url": registry.url, "timeout_s": 0.5})
    ensure_topics(config)
    writer_ids(config)
    schema = newer_schema(f"hint_{config.log.namespace[-8:]}")
    field = json.loads(schema)["fields"][-1]["name"]
    number = RegistryClient(registry.url).register(subject_of(config, "experiences"), schema)
    worker = start_worker(config)
    with EventWriter(config, "test") as writer, EventReader(config, "test", ["ready", "dlq"]) as reader:
        with registry.frozen():
            for sample in range(4):
                value = foreign_event(number, schema, 1, sample, field)
                writer.send_bytes("experiences", value, key=b"train-00000001")
                writer.send("experiences", experience(2, sample))
            writer.flush()
            wait_for(lambda: "waiting for schema" in worker.log, 20, lambda: worker.log)
            time.sleep(1.5)
            assert [event.entity for event in reader.poll(0.5) if event.entity == "dlq"] == []
            assert worker.process.poll() is None
        events = read_until(reader, lambda seen: len(seen) >= 8, 30, lambda: worker.log)
        assert {event.entity for event in events} == {"ready"}
        ids = {event.record(ScoredExperience).experience.experience_id for event in events}
        assert ids == {f"train-0000000{group}/{sample}" for group in (1, 2) for sample in range(4)}
        assert all((event.value or b"")[:1] == b"\0" for event in events), "ready events are framed as Confluent's, too"
    wait_for(lambda: committed(config) == 8, 10, lambda: worker.log)


def test_an_id_that_no_registry_knows_is_a_dead_letter(embedded_broker, make_config, registry, start_worker):
    config = make_config(embedded_broker, registry={"url": registry.url})
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        writer.send_bytes("experiences", b"\0\x7f\xff\xff\xfe junk", key=b"k")
        for sample in range(4):
            writer.send("experiences", experience(0, sample))
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 5, 30, lambda: worker.log)
    [letter] = [event for event in events if event.entity == "dlq"]
    assert b"schema id 2147483646 is unknown to the registry" in dict(letter.headers)["rft.error.message"]


def test_a_registry_that_refuses_our_schema_ends_the_role_with_one_clear_error(
    embedded_broker, make_config, registry, start_worker
):
    config = make_config(embedded_broker, registry={"url": registry.url})
    other = json.loads(current("ScoredExperience").text)
    other["fields"] = [field for field in other["fields"] if field["name"] != "verdict"]
    RegistryClient(registry.url).register(subject_of(config, "ready"), json.dumps(other))
    worker = start_worker(config, ready=False)
    assert worker.process.wait(30) == 1
    [line] = [line for line in worker.log.splitlines() if " ERROR " in line]
    assert "ERROR processor: IncompatibleSchemaError: schema registry" in line
    assert f"subject {config.log.namespace}.ready.v1-value" in line
    assert "verdict" in line
    assert "Traceback" not in worker.log
