"""The ``.avsc`` files document everything that a reader needs, and agree with the typed records."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import avro.schema
import numpy as np
import pytest

import schemas
from schemas.events import RECORDS, EventRef, ExternalReward, WaitingMember
from schemas.load import NAMES, current
from schemas.sessions import GivenReward, TurnPlace

FOLDER = Path(schemas.__file__).parent / "avsc"
NESTED = (EventRef, WaitingMember, ExternalReward, TurnPlace, GivenReward)
FILES = sorted(FOLDER.glob("*.avsc"))


def fields_of(name: str) -> list[dict[str, Any]]:
    return list(json.loads((FOLDER / f"{name}.avsc").read_text())["fields"])


def test_every_record_has_its_own_file() -> None:
    assert {path.stem for path in FILES} >= {kind.__name__ for kind in (*RECORDS, *NESTED)}
    assert set(NAMES) == {kind.__name__ for kind in RECORDS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_record_and_field_is_documented(path: Path) -> None:
    schema = json.loads(path.read_text())
    assert schema["namespace"] == "stream_rft"
    assert schema["doc"]
    for field in schema["fields"]:
        assert len(field.get("doc", "")) > 8, field["name"]
        if field["type"] == "bytes":
            assert "little-endian" in field["doc"] or "u1" in field["doc"]


@pytest.mark.parametrize("kind", [*RECORDS, *NESTED], ids=lambda kind: kind.__name__)
def test_fields_and_defaults_are_those_of_the_typed_record(kind: Any) -> None:
    typed = dataclasses.fields(kind)
    wire = fields_of(kind.__name__)
    assert [field.name for field in typed] == [field["name"] for field in wire]
    for field, described in zip(typed, wire, strict=True):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        # As Avro spells defaults: bytes as text, tuples as arrays.
        if isinstance(default, np.ndarray):
            default = default.tobytes()
        if isinstance(default, bytes):
            default = default.decode("latin-1")
        if isinstance(default, tuple):
            default = list(default)
        assert described.get("default", dataclasses.MISSING) == default, field.name


@pytest.mark.parametrize("name", NAMES)
def test_the_avro_package_parses_each_schema_and_agrees_on_its_fingerprint(name: str) -> None:
    schema = current(name)
    assert avro.schema.parse(schema.text).fingerprint("CRC-64-AVRO") == schema.fingerprint


def test_fingerprints_differ_between_records() -> None:
    assert len({current(name).fingerprint for name in NAMES}) == len(NAMES)
