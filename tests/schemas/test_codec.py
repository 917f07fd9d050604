"""Encoded records are read back, by us and by other implementations of Avro."""

from __future__ import annotations

import io
import json
from typing import Any

import avro.io
import avro.schema
import numpy as np
import pytest
from hypothesis import given
from record_strategies import STRATEGIES, experience, records, scored_experience

from schemas.codec import decode, encode
from schemas.errors import DecodeError, EncodeError
from schemas.events import Experience, Record, Task
from schemas.load import NAMES, current
from schemas.wire import from_wire, to_wire


def test_there_is_a_strategy_for_every_record() -> None:
    assert set(STRATEGIES) == set(NAMES)


@given(records)
def test_every_record_survives_the_wire(record: Record) -> None:
    data = encode(record)
    assert data[:2] == b"\xc3\x01"
    again = decode(data, type(record))
    assert again == record
    assert encode(again) == data


@given(records)
def test_the_avro_package_reads_what_we_write(record: Record) -> None:
    schema = avro.schema.parse(current(type(record).__name__).text)
    data = encode(record)
    assert data[2:10] == schema.fingerprint("CRC-64-AVRO")
    body = io.BytesIO(data[10:])
    values = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(body))
    assert not body.read()
    assert from_wire(type(record), values) == record


@given(records)
def test_we_read_what_the_avro_package_writes(record: Record) -> None:
    schema = avro.schema.parse(current(type(record).__name__).text)
    body = io.BytesIO()
    avro.io.DatumWriter(schema).write(to_wire(record), avro.io.BinaryEncoder(body))
    assert decode(encode(record)[:10] + body.getvalue(), type(record)) == record


def test_packed_fields_are_laid_out_as_documented() -> None:
    values = to_wire(experience())
    assert values["tokens"] == b"".join(token.to_bytes(4, "little") for token in (5, 6, 7, 7, 6, 5))
    assert values["action_mask"] == b"\x00\x00\x00\x01\x01\x01"
    assert values["logprobs"][12:16] == bytes.fromhex("000000bf")
    assert values["versions"] == b"".join(n.to_bytes(4, "little", signed=True) for n in (-1, 3, 2, 2, 3, 1))


def test_decoded_arrays_have_exact_dtypes_and_cannot_be_changed() -> None:
    again = decode(encode(experience()), Experience)
    arrays = [again.tokens, again.action_mask, again.logprobs, again.versions]
    assert [a.dtype for a in arrays] == [np.int32, np.uint8, np.float32, np.int32]
    assert not any(a.flags.writeable for a in arrays)


def test_arrays_of_wider_types_are_narrowed_if_nothing_is_lost() -> None:
    wide = experience(tokens=np.array([5, 6, 7, 7, 6, 5], np.int64), action_mask=np.arange(6) > 2)
    assert decode(encode(wide)) == experience()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tokens": np.array([1, 2, 3, 4, 5, 2**31], np.int64)}, "tokens"),
        ({"tokens": np.array([1, 2, 3, 4, 5, -6], np.int32)}, "tokens"),
        ({"tokens": np.ones(6, np.float32)}, "tokens"),
        ({"tokens": [1, 2, 3, 4, 5, 6]}, "tokens"),
        ({"tokens": np.ones((2, 3), np.int32)}, "tokens"),
        ({"action_mask": np.array([0, 1], np.uint8)}, "action_mask"),
        ({"action_mask": np.full(6, 2, np.uint8)}, "action_mask"),
        ({"logprobs": np.zeros(5, np.float32)}, "logprobs"),
        ({"logprobs": np.full(6, np.nan, np.float32)}, "logprobs"),
        ({"logprobs": np.full(6, -1e300)}, "logprobs"),
        ({"versions": np.zeros(7, np.int32)}, "versions"),
        ({"versions": np.full(6, -2, np.int32)}, "versions"),
        ({"reward": float("nan")}, "reward"),
        ({"reward": "high"}, "reward"),
        ({"temperature": float("inf")}, "temperature"),
        ({"number": 2**63}, "number"),
        ({"prompt": None}, "prompt"),
        ({"response": "\ud800"}, "response"),
    ],
)
def test_a_value_that_could_not_be_read_is_not_written(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(experience(**changes))
    assert caught.value.field == field
    with pytest.raises(EncodeError) as caught:
        encode(scored_experience(experience=experience(**changes)))
    assert caught.value.field == f"experience.{field}"


def test_nan_in_a_map_is_not_written() -> None:
    with pytest.raises(EncodeError) as caught:
        encode(scored_experience(rewards={"exact_match": 1.0, "mine": float("nan")}))
    assert caught.value.field == "rewards['mine']"


def confluent(schema_id: int, record: Record) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big") + encode(record)[10:]


def test_confluent_framing_is_read_through_the_callers_lookup() -> None:
    schemas = {7: current("Experience").text}
    assert decode(confluent(7, experience()), Experience, writer_schemas=schemas.get) == experience()
    with pytest.raises(DecodeError, match="schema id 8 is unknown"):
        decode(confluent(8, experience()), Experience, writer_schemas=schemas.get)
    with pytest.raises(DecodeError, match="no registry is configured"):
        decode(confluent(7, experience()), Experience)


def test_events_of_a_writer_with_fewer_or_more_fields_are_read() -> None:
    schema = json.loads(current("Task").text)
    older = {**schema, "fields": [f for f in schema["fields"] if f["name"] != "metadata"]}
    newer = {**schema, "fields": [*schema["fields"], {"name": "hint", "type": "string", "default": ""}]}
    task = Task("g", 0, "train", "s", "p", None, 8, 64, 1.0, 1.0, 0, 0, 1, '{"a": 1}')
    lookup = {1: json.dumps(older), 2: json.dumps(newer)}.get
    body = encode(task)[10:]
    assert decode(b"\0\0\0\0\x01" + body[: -len(b"\x10" + b'{"a": 1}')], Task, writer_schemas=lookup).metadata == "{}"
    assert decode(b"\0\0\0\0\x02" + body + b"\x04hi", Task, writer_schemas=lookup) == task


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        '{"type": "record", "name": "Task"}',
        '"string"',
        '{"type": "record", "name": "other.Task", "fields": []}',
        '{"type": "record", "name": "stream_rft.Task", "fields": [{"name": "group_id", "type": "long"}]}',
        '{"type": "record", "name": "stream_rft.Task", "fields": [{"name": "in", "type": "stream_rft.Task"}]}',
    ],
)
def test_a_writers_schema_that_does_not_fit_is_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError):
        decode(b"\0\0\0\0\x01\x02\x02\x02", writer_schemas=lambda _: text)


def test_an_error_of_the_lookup_is_not_taken_for_a_malformed_event() -> None:
    def unreachable(schema_id: int) -> str:
        raise ConnectionError(schema_id)

    with pytest.raises(ConnectionError):
        decode(confluent(7, experience()), writer_schemas=unreachable)
