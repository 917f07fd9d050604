"""docs/clients.md says byte by byte what is on the wire."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rft.log.record_checks import key_partition
from rft.log.topics import ENTITIES
from schemas.framing import frame
from schemas.load import NAMES, history
from schemas.packing import pack

TEXT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
CELL = re.compile(r"^`?(.*?)`?$")


def rows(first_header: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this header."""
    table = TEXT.partition(f"| {first_header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[CELL.sub(r"\1", cell.strip()) for cell in line.strip("|").split("|")] for line in table]


def test_the_fingerprints_of_all_versions_of_all_records_are_listed() -> None:
    topics = {spec.record.__name__: entity for entity, spec in ENTITIES.items() if spec.record is not None}
    assert rows("record") == [
        [name, str(version), schema.fingerprint.hex(" "), topics[name]]
        for name in NAMES
        for version, schema in history(name).items()
    ]


def test_the_frames_are_those_that_are_written() -> None:
    single_object, confluent = (row[1] for row in rows("frame"))
    assert single_object.startswith(frame("Reward", None)[:2].hex(" ").upper())
    assert confluent.startswith(frame("Reward", 7)[:1].hex())
    assert frame("Reward", 0x01020304) == bytes([0, 1, 2, 3, 4]), "big-endian"


def test_packed_fields_have_the_bytes_that_are_shown() -> None:
    shown = {row[0]: (row[2].split(", "), bytes.fromhex(row[3])) for row in rows("field")}
    given = {name: np.array([float(number) for number in numbers]) for name, (numbers, _) in shown.items()}
    packed = pack(
        given["tokens"].astype(np.int32),
        given["action_mask"].astype(np.uint8),
        given["logprobs"].astype(np.float32),
        given["versions"].astype(np.int32),
    )
    assert dict(zip(("tokens", "action_mask", "logprobs", "versions"), packed, strict=True)) == {
        name: data for name, (_, data) in shown.items()
    }


@pytest.mark.parametrize("row", rows("key"), ids=lambda row: row[0])
def test_keys_have_the_partitions_that_are_shown(row: list[str]) -> None:
    key, murmur2, *partitions = row
    assert [key_partition(key.encode(), count) for count in (4, 6, 12)] == [int(number) for number in partitions]
    assert [(int(murmur2, 16) & 0x7FFFFFFF) % count for count in (4, 6, 12)] == [int(number) for number in partitions]
