"""With a schema registry, other implementations read our events and we read theirs."""

from __future__ import annotations

import io
import json
from typing import Any

import avro.io
import avro.schema
import pytest

from rft.errors import DecodeError, IncompatibleSchemaError, RegistryError, RegistryUnreachableError
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.registry import Registry, open_registry, subject_of, writer_ids
from rft.log.writer import EventWriter
from schemas.events import Task
from schemas.load import NAMES, current
from schemas.registry import RegistryClient
from schemas.wire import to_wire

pytestmark = pytest.mark.registry


def task(number: int = 3) -> Task:
    return Task(f"train-{number:08d}", number, "train", "s", "löwe>", None, 8, 64, 1.0, 1.0, 0, 0, 1, '{"a": 1}')


def task_schema(*more: dict[str, Any], **types: Any) -> str:
    """Return Task's schema with further fields, or other types."""
    raw = json.loads(current("Task").text)
    fields = [field | {"type": types.get(field["name"], field["type"])} for field in raw["fields"]]
    return json.dumps(raw | {"fields": [*fields, *more]})


def written_by_avro(schema: str, values: dict[str, Any]) -> bytes:
    """Encode a record as the Avro project's own implementation does."""
    buffer = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(schema)).write(values, avro.io.BinaryEncoder(buffer))
    return buffer.getvalue()


def only_event(config: Any) -> Event:
    with EventReader(config, "reader", ["tasks"]) as reader:
        ends = reader.end_offsets()
        events: list[Event] = []
        while not reader.caught_up(ends):
            events += reader.poll(0.2)
    [event] = events
    return event


def test_our_events_have_confluents_framing_and_another_implementation_reads_them(registry_config, registry):
    config = registry_config()
    with EventWriter(config, "writer") as writer:
        writer.send("tasks", task())
    value = only_event(config).value
    assert value is not None
    assert value[0] == 0
    text = RegistryClient(registry.url).schema(int.from_bytes(value[1:5], "big"))
    assert text is not None
    body = io.BytesIO(value[5:])
    assert avro.io.DatumReader(avro.schema.parse(text)).read(avro.io.BinaryDecoder(body)) == to_wire(task())
    assert not body.read()


def test_a_process_that_has_seen_no_schema_reads_events_written_with_a_registry(registry_config):
    config = registry_config()
    with EventWriter(config, "writer") as writer:
        writer.send("tasks", task())
    event = only_event(config)
    fresh = Registry(config.registry)
    assert Event("tasks", 0, 0, 0, None, event.value, (), writer_schemas=fresh.find).record(Task) == task()


def test_every_topic_has_its_subject_and_all_are_fully_transitive(registry_config, registry):
    config = registry_config()
    ids = writer_ids(config)
    assert len(ids) == len(NAMES)
    client = RegistryClient(registry.url)
    for entity, number in ids.items():
        subject = f"{config.log.namespace}.{entity}.v1-value"
        assert subject == subject_of(config, entity)
        assert client.compatibility(subject) == "FULL_TRANSITIVE"
        assert client.find(subject, client.schema(number) or "") == number


def test_an_event_of_another_avro_implementation_with_a_schema_of_its_own_is_consumed(registry_config, registry):
    config = registry_config()
    writer_ids(config)
    newer = task_schema({"name": "hint", "type": {"type": "map", "values": "long"}, "default": {}})
    number = RegistryClient(registry.url).register(subject_of(config, "tasks"), newer)
    body = written_by_avro(newer, to_wire(task()) | {"hint": {"a": 1}})
    with EventWriter(config, "stranger") as writer:
        writer.send_bytes("tasks", b"\0" + number.to_bytes(4, "big") + body, key=b"train-00000003")
    assert only_event(config).record(Task) == task()


def test_a_schema_id_in_a_header_is_understood(registry_config, registry):
    config = registry_config()
    number = writer_ids(config)["tasks"]
    body = written_by_avro(current("Task").text, to_wire(task()))
    with EventWriter(config, "stranger") as writer:
        header = ("__value_schema_id", b"\0" + number.to_bytes(4, "big"))
        writer.send_bytes("tasks", body, key=b"k", headers=[header])
    assert only_event(config).record(Task) == task()


def test_events_from_before_the_registry_are_still_read(registry_config):
    config = registry_config()
    without = config.model_copy(update={"registry": type(config.registry)()})
    with EventWriter(without, "writer") as writer:
        writer.send("tasks", task())
    event = only_event(config)
    assert (event.value or b"")[:2] == b"\xc3\x01"
    assert event.record(Task) == task()


def test_an_id_that_the_registry_does_not_know_is_a_decode_error(registry_config):
    config = registry_config()
    with EventWriter(config, "stranger") as writer:
        writer.send_bytes("tasks", b"\0\x7f\xff\xff\xff rest", key=b"k")
    with pytest.raises(DecodeError, match="schema id 2147483647 is unknown to the registry"):
        only_event(config).record()


def test_an_incompatible_schema_is_refused_with_subject_cause_and_remedy(registry_config, registry):
    config = registry_config()
    RegistryClient(registry.url).register(subject_of(config, "tasks"), task_schema(samples="string"))
    with pytest.raises(IncompatibleSchemaError) as caught:
        EventWriter(config, "writer")
    message = str(caught.value)
    assert f"cannot become a version of subject {config.log.namespace}.tasks.v1-value" in message
    assert "LONG not compatible with writer type: STRING at /fields/6/type" in message
    assert "rft schemas check" in message
    assert "\n" not in message


def test_a_subject_with_a_laxer_rule_gets_ours_before_our_schema(registry_config, registry):
    config = registry_config()
    client, subject = RegistryClient(registry.url), subject_of(config, "tasks")
    client.register(subject, task_schema({"name": "hint", "type": "string"}))
    client.set_compatibility(subject, "NONE")
    with pytest.raises(IncompatibleSchemaError):
        writer_ids(config)
    assert client.compatibility(subject) == "FULL_TRANSITIVE"


def test_without_auto_register_only_what_is_there_is_used(registry_config):
    config = registry_config(auto_register=False)
    with pytest.raises(RegistryError, match=r"not a version of subject .*tasks\.v1-value.*rft schemas register"):
        EventWriter(config, "writer")
    registering = config.model_copy(update={"registry": config.registry.model_copy(update={"auto_register": True})})
    ids = writer_ids(registering)
    assert writer_ids(config) == ids


def test_a_running_writer_needs_no_registry(registry_config, registry):
    config = registry_config(patience_s=0)
    with EventWriter(config, "writer") as writer, registry.frozen():
        writer.send("tasks", task())
        writer.flush()
        assert only_event(config).record(Task) == task()


def test_a_reader_waits_for_an_unreachable_registry_and_then_reports_it(registry_config, registry):
    config = registry_config(timeout_s=2, patience_s=3)
    number = writer_ids(config)["tasks"]
    fresh = Registry(config.registry)
    with registry.frozen(), pytest.raises(RegistryUnreachableError, match=f"{registry.url}: no answer in time"):
        fresh.find(number)
    assert fresh.find(number) == open_registry(config).known(number)
