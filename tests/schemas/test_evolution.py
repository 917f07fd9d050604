"""Old events stay readable by new code, and new ones by old readers."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import avro.io
import avro.schema
import fastavro
import pytest
from example_records import EXAMPLES, fixture

from schemas import framing, history, load
from schemas.codec import decode, encode
from schemas.compatibility import full_transitive
from schemas.errors import DecodeError, IncompatibleSchemaError
from schemas.events import Task
from schemas.history import FROZEN, check_current, check_file, explain, freeze, unfrozen
from schemas.load import NAMES, Schema, build, by_fingerprint, current
from schemas.wire import to_wire

VERSIONS = [(name, number) for name in NAMES for number in load.history(name)]


def task_schema(*more: dict[str, Any], without: str = "", **types: Any) -> dict[str, Any]:
    """Return Task's schema with a change."""
    raw = json.loads(current("Task").text)
    fields = [f | {"type": types.get(f["name"], f["type"])} for f in raw["fields"] if f["name"] != without]
    return raw | {"fields": [*fields, *more]}


def judge(raw: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = full_transitive(build(raw), "Task.avsc", {"Task.v1.avsc": load.history("Task")[1]})
    return sorted((one.rule, one.path, one.reader) for one in found)


@pytest.mark.parametrize("name", FROZEN)
def test_current_schemas_and_all_their_versions_read_each_other(name: str) -> None:
    assert explain(check_current()[f"{name}.avsc"]) == []


def test_every_schema_in_use_is_stored_as_a_version() -> None:
    assert unfrozen() == [], "schemas changed: run `rft schemas freeze`, then `python tests/schemas/example_records.py`"


@pytest.mark.parametrize(("name", "number"), VERSIONS)
def test_bytes_of_every_version_can_always_be_read(name: str, number: int) -> None:
    data = fixture(name, number).read_bytes()
    assert data[2:10] == load.history(name)[number].fingerprint
    assert decode(data) == EXAMPLES[name]


def test_a_field_with_a_default_may_be_added_and_removed() -> None:
    assert judge(task_schema({"name": "hint", "type": "string", "default": ""})) == []
    assert judge(task_schema(without="metadata")) == []


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (
            task_schema({"name": "hint", "type": "string"}),
            [("reader_field_missing_default_value", "/fields/15", "Task.avsc")],
        ),
        (task_schema(without="seed"), [("reader_field_missing_default_value", "/fields/10", "Task.v1.avsc")]),
        (task_schema(samples="int"), [("type_mismatch", "/fields/6/type", "Task.avsc")]),
        (
            task_schema(samples="string"),
            [("type_mismatch", "/fields/6/type", "Task.avsc"), ("type_mismatch", "/fields/6/type", "Task.v1.avsc")],
        ),
        (task_schema(answer="string"), [("type_mismatch", "/fields/5/type", "Task.avsc")]),
        (task_schema(prompt=["null", "string"]), [("type_mismatch", "/fields/4/type", "Task.v1.avsc")]),
        (
            task_schema(answer=["null", "string", "long"]),
            [("missing_union_branch", "/fields/5/type", "Task.v1.avsc")],
        ),
        (
            task_schema(seed="string", without="split") | {"name": "Job"},
            [
                ("name_mismatch", "/name", "Task.avsc"),
                ("name_mismatch", "/name", "Task.v1.avsc"),
                ("reader_field_missing_default_value", "/fields/2", "Task.v1.avsc"),
                ("type_mismatch", "/fields/10/type", "Task.v1.avsc"),
                ("type_mismatch", "/fields/9/type", "Task.avsc"),
            ],
        ),
    ],
)
def test_an_incompatible_change_is_named_with_its_rule_and_path(raw: dict[str, Any], found: list[Any]) -> None:
    assert judge(raw) == found


def test_every_incompatibility_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "Task.avsc"
    path.write_text(json.dumps(task_schema({"name": "hint", "type": "string"}, samples="string")))
    text = "\n".join(explain(check_file(path)))
    assert "Task.avsc: /fields/15 (field hint): reader_field_missing_default_value" in text
    assert "/fields/6/type (field samples): type_mismatch" in text
    assert 'give the new field a "default"' in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not JSON"),
        ('{"type": "record", "name": "Task", "namespace": "stream_rft"}', "not a valid Avro schema"),
        (json.dumps(task_schema({"name": "n", "type": "long", "default": "x"})), "not a valid Avro schema"),
        ('{"type": "record", "name": "mine.Task", "fields": []}', "holds 'mine.Task'"),
        ('"string"', "holds 'string'"),
    ],
)
def test_a_file_that_is_not_one_of_our_schemas_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "Task.avsc"
    path.write_text(text)
    with pytest.raises(IncompatibleSchemaError, match=message):
        check_file(path)


@pytest.fixture
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Use a history in a folder of the test, and clear the caches."""
    folder = tmp_path / "history"
    shutil.copytree(load.HISTORY, folder)
    # As if the present Task were the first.
    *earlier, newest = [folder / f"Task.v{version}.avsc" for version in load.history("Task")]
    newest.rename(earlier[0])
    caches = (load.history, load.by_fingerprint, framing.schema_headers)

    def forget() -> None:
        for cached in caches:
            cached.cache_clear()

    for module in (load, history):
        monkeypatch.setattr(module, "HISTORY", folder)
    forget()
    yield folder
    monkeypatch.undo()
    forget()


def body(schema: Schema, values: dict[str, Any]) -> bytes:
    """Another Avro implementation wrote the event."""
    buffer = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(schema.text)).write(values, avro.io.BinaryEncoder(buffer))
    return buffer.getvalue()


def test_an_event_of_an_old_version_is_read_with_defaults_for_missing_fields(own_history: Path) -> None:
    (own_history / "Task.v1.avsc").write_text(json.dumps(task_schema(without="metadata")))
    old = build(task_schema(without="metadata"))
    values = to_wire(EXAMPLES["Task"])
    del values["metadata"]
    again = decode(b"\xc3\x01" + old.fingerprint + body(old, values))
    assert isinstance(again, Task)
    assert again.metadata == "{}"
    assert again.group_id == "train-00000012"
    assert old.fingerprint in by_fingerprint()


def test_a_later_schema_travels_with_its_events_and_old_readers_use_it(own_history: Path) -> None:
    assert framing.schema_headers("Task") == ()
    (own_history / "Task.v1.avsc").write_text(json.dumps(task_schema(without="metadata")))
    load.history.cache_clear()
    framing.schema_headers.cache_clear()
    [(name, packed)] = framing.schema_headers("Task")
    assert name == "rft.schema"
    assert len(packed) < 400

    # The reader that knows nothing of the new field is this release; the writer is one to come.
    new = build(task_schema({"name": "hint", "type": {"type": "array", "items": "string"}, "default": []}))
    data = b"\xc3\x01" + new.fingerprint + body(new, to_wire(EXAMPLES["Task"]) | {"hint": ["ab", "c"]})
    headers = [("ce_id", b"x"), ("rft.schema", zlib.compress(new.canonical.encode()))]
    assert decode(data, Task, headers=headers) == EXAMPLES["Task"]
    with pytest.raises(DecodeError, match=f"unknown schema fingerprint {new.fingerprint.hex()}"):
        decode(data, Task)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"junk", "cannot be unpacked"),
        (zlib.compress(b'{"a":' + b" " * 10_000_000), "cannot be parsed"),
        (zlib.compress(current("Reward").canonical.encode()), "holds another schema"),
        (None, "no header rft.schema"),
    ],
)
def test_a_false_schema_header_is_a_decode_error(packed: bytes | None, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(b"\xc3\x01" + b"unknown!" + b"\0" * 40, headers=[("rft.schema", packed)])


def test_the_newer_confluent_header_is_read_by_number_and_by_guid() -> None:
    guid = "0123456789abcdef0123456789abcdef"
    known: dict[Any, str] = {7: current("Task").text, str(UUID(guid)): current("Task").text}
    bare = encode(EXAMPLES["Task"])[10:]
    for value in (b"\x01" + bytes.fromhex(guid), b"\x00\x00\x00\x00\x07"):
        headers = [("__value_schema_id", value)]
        assert decode(bare, Task, writer_schemas=known.get, headers=headers) == EXAMPLES["Task"]
    with pytest.raises(DecodeError, match="header __value_schema_id is 02"):
        decode(bare, writer_schemas=known.get, headers=[("__value_schema_id", b"\x02")])
    with pytest.raises(DecodeError, match="no registry is configured"):
        decode(bare, headers=headers)


def test_events_with_a_schema_id_have_confluents_framing() -> None:
    data = encode(EXAMPLES["Task"], schema_id=300)
    assert data[:5] == b"\x00\x00\x00\x01\x2c"
    assert fastavro.schemaless_reader(io.BytesIO(data[5:]), current("Task").parsed, None) == to_wire(EXAMPLES["Task"])


def test_freezing_adds_changed_schemas_and_refuses_incompatible_ones(own_history: Path) -> None:
    assert freeze() == []
    (own_history / "Task.v1.avsc").write_text(json.dumps(task_schema(without="metadata")))
    load.history.cache_clear()
    assert freeze() == [own_history / "Task.v2.avsc"]
    assert [*load.history("Task")] == [1, 2]
    (own_history / "Task.v3.avsc").write_text(json.dumps(task_schema(samples="string")))
    load.history.cache_clear()
    with pytest.raises(IncompatibleSchemaError, match="field samples"):
        freeze()
    assert not (own_history / "Task.v4.avsc").exists()
