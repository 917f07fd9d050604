"""Decoding any bytes soon gives a record, or a DecodeError that names the invalid field."""

from __future__ import annotations

import io
import json
import struct
import time
from contextlib import suppress
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import experience, records, scored_experience

from rft.errors import DecodeError as RftDecodeError
from rft.errors import RftError
from schemas.codec import decode, encode
from schemas.errors import DecodeError
from schemas.events import EventRef, Record, Reward, Task, TrainingStep
from schemas.load import NAMES, by_fingerprint, current
from schemas.walk import verify
from schemas.wire import to_wire


def field_at_fault(data: bytes, **options: Any) -> str | None:
    with pytest.raises(DecodeError) as caught:
        decode(data, **options)
    return caught.value.field


def tampered(**changes: Any) -> bytes:
    """Return an encoded experience whose plain values were changed without the codec's checks."""
    schema = current("Experience")
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema.parsed, {**to_wire(experience()), **changes})
    return b"\xc3\x01" + schema.fingerprint + body.getvalue()


def pairs(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}i", *numbers)


def test_it_is_one_error_on_all_floors() -> None:
    assert RftDecodeError is DecodeError
    assert issubclass(DecodeError, RftError)


@given(records, st.data())
def test_no_truncated_message_is_read(record: Record, data: st.DataObject) -> None:
    whole = encode(record)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        decode(whole[:cut])


@pytest.mark.parametrize("record", [experience(), scored_experience()], ids=lambda r: type(r).__name__)
def test_every_truncation_is_refused_and_names_the_field_where_the_data_ends(record: Record) -> None:
    whole = encode(record)
    for cut in range(len(whole)):
        field = field_at_fault(whole[:cut])
        assert (field is None) == (cut < 10), (cut, field)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data, writer_schemas=lambda _: None)


@given(st.sampled_from(NAMES), st.binary(max_size=300))
def test_random_bytes_after_a_known_fingerprint_raise_only_decode_errors(name: str, body: bytes) -> None:
    with suppress(DecodeError):
        decode(b"\xc3\x01" + current(name).fingerprint + body)


@given(records, st.data())
def test_flipped_bytes_raise_only_decode_errors(record: Record, data: st.DataObject) -> None:
    whole = bytearray(encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DecodeError):
        decode(bytes(whole), writer_schemas=lambda _: None)


@given(records)
def test_the_walk_that_names_fields_accepts_all_valid_data(record: Record) -> None:
    schema = current(type(record).__name__)
    verify(schema.parsed, schema.named, encode(record), start=10)


@given(records, st.binary(min_size=1, max_size=50))
def test_trailing_bytes_are_refused(record: Record, rest: bytes) -> None:
    with pytest.raises(DecodeError, match="trailing"):
        decode(encode(record) + rest)


def test_an_unknown_fingerprint_is_refused() -> None:
    unknown = bytes(8)
    assert unknown not in by_fingerprint()
    with pytest.raises(DecodeError, match="unknown schema fingerprint 0000"):
        decode(b"\xc3\x01" + unknown + b"anything")


def test_the_wrong_record_for_a_topic_is_refused() -> None:
    with pytest.raises(DecodeError, match="holds Experience, expected Task"):
        decode(encode(experience()), Task)


@pytest.mark.parametrize("data", [b"", b"\xc3", b"\xc3\x01", b"\xc3\x01abc", b"\x00\x00", b"{}", b"\xff" * 100])
def test_a_broken_frame_is_refused(data: bytes) -> None:
    assert field_at_fault(data) is None


def test_an_event_over_the_limit_is_refused_unread() -> None:
    data = encode(experience())
    assert decode(data, max_bytes=len(data)) == experience()
    with pytest.raises(DecodeError, match="max_message_bytes"):
        decode(data, max_bytes=len(data) - 1)
    started = time.perf_counter()
    field_at_fault(b"\xc3\x01" + current("Task").fingerprint + bytes(10_000_000))
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tokens": pairs(1, 2, 3, 4, 5)}, "action_mask"),
        ({"tokens": b"12345"}, "tokens"),
        ({"tokens": pairs(1, 2, 3, 4, 5, -1)}, "tokens"),
        ({"action_mask": b"\x00\x01"}, "action_mask"),
        ({"action_mask": b"\x00\x01\x02\x00\x00\x00"}, "action_mask"),
        ({"logprobs": b""}, "logprobs"),
        ({"logprobs": b"abc"}, "logprobs"),
        ({"logprobs": struct.pack("<6f", 0, 0, 0, 0, 0, float("nan"))}, "logprobs"),
        ({"logprobs": struct.pack("<6f", 0, 0, 0, 0, 0, float("-inf"))}, "logprobs"),
        ({"versions": pairs(1, 5)}, "versions"),
        ({"versions": pairs(1, 7)}, "versions"),
        ({"versions": b""}, "versions"),
        ({"versions": pairs(1, 6, 2)}, "versions"),
        ({"versions": pairs(1, -1, 1, 7)}, "versions"),
        ({"versions": pairs(1, 0, 1, 6)}, "versions"),
        ({"versions": pairs(1, 2**31 - 1)}, "versions"),
        ({"versions": pairs(*[1, 2**31 - 1] * 1000)}, "versions"),
        ({"versions": pairs(-2, 6)}, "versions"),
        ({"reward": float("nan")}, "reward"),
        ({"reward": float("inf")}, "reward"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": float("-inf")}, "top_p"),
    ],
)
def test_a_value_that_avro_allows_and_we_do_not_is_named(changes: dict[str, Any], field: str) -> None:
    assert field_at_fault(tampered(**changes)) == field


def test_a_claimed_run_length_is_not_trusted() -> None:
    started = time.perf_counter()
    assert field_at_fault(tampered(versions=pairs(*[1, 2**31 - 1] * 100_000))) == "versions"
    assert time.perf_counter() - started < 1


def test_faults_inside_nested_records_and_maps_have_a_path() -> None:
    good = encode(scored_experience())
    nan = struct.pack("<d", float("nan"))
    assert (
        field_at_fault(good.replace(struct.pack("<f", -0.25), struct.pack("<f", float("inf")))) == "experience.logprobs"
    )
    at = good.index(b"exact_match") + len(b"exact_match")
    assert field_at_fault(good[:at] + nan + good[at + 8 :]) == "rewards['exact_match']"
    step = TrainingStep(
        "m", "step", 1, 0, 1, tuple(EventRef(0, i, f"id-{i}", i, 0) for i in range(4)), (), (), "", {}, 1
    )
    whole = encode(step)
    assert field_at_fault(whole[: whole.index(b"id-3") + 2]) == "trained[3].experience_id"


def test_claimed_lengths_and_counts_are_not_trusted() -> None:
    """Negative, gigantic and overlong ones are refused at once."""
    head = b"\xc3\x01" + current("Task").fingerprint
    gigantic = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    started = time.perf_counter()
    for length in (b"\x01", gigantic, b"\xff" * 9 + b"\x01", b"\xff" * 40 + b"\x01"):
        assert field_at_fault(head + length + b"abc") == "group_id"
    step = TrainingStep("m", "step", 1, 0, 1, (), (), (), "", {}, 1)
    whole = encode(step)
    at = whole.index(b"step") + 4 + 3
    for count in (gigantic, b"\xff" * 9 + b"\x01\x00"):
        assert field_at_fault(whole[:at] + count + whole[at + 1 :]) == "trained"
    assert time.perf_counter() - started < 1


def test_valid_encodings_other_than_ours_are_read() -> None:
    """Java's blocking encoder writes arrays in several blocks, with negative counts and sizes."""
    step = TrainingStep("m", "step", 1, 0, 1, (), (), (5, 6), "digest", {}, 1)
    whole = encode(step)
    at = whole.index(b"\x0cdigest") - 4
    assert whole[at : at + 4] == b"\x04\x0a\x0c\x00"
    blocks = b"\x01\x02\x0a" + b"\x02\x0c" + b"\x00"
    assert decode(whole[:at] + blocks + whole[at + 4 :], TrainingStep) == step


@pytest.mark.parametrize(
    ("added", "body", "message"),
    [
        ({"type": "array", "items": "null"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00", "claims .* items in"),
        (["null", "stream_rft.Reward"], (b"\x02" * 7 + bytes(8) + b"\x02\x02\x00") * 100_000, "nested deeper"),
    ],
    ids=["items of no width", "a record within itself"],
)
def test_a_hostile_schema_can_neither_hang_nor_crash_the_reader(added: Any, body: bytes, message: str) -> None:
    schema = json.loads(current("Reward").text)
    schema["fields"].append({"name": "added", "type": added})
    text = json.dumps(schema)
    reward = Reward("g/0", "g", "human", 1.0, 0)
    started = time.perf_counter()
    with pytest.raises(DecodeError, match=message) as caught:
        decode(b"\x00\x00\x00\x00\x01" + encode(reward)[10:] + body, writer_schemas=lambda _: text)
    assert (caught.value.field or "").startswith("added")
    assert time.perf_counter() - started < 1
