"""Writes selected events to a file: JSON lines, Parquet or an Avro container. Equal selections give equal bytes.

JSON lines and Parquet have one column a field (:data:`consumers.replay.selected_event.COLUMNS`), token-level fields as
lists. Avro holds ScoredExperience records as they are on ``ready``, token-level fields packed as its schema says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from fastavro.write import Writer

from consumers.replay import ReplayError
from consumers.replay.selected_event import RENAMED, SelectedEvent, event_row
from schemas.load import current
from schemas.wire import to_wire

ROWS = 2048
"""Rows of one Parquet row group."""
AVRO_BLOCK_BYTES = 64 * 1024

_Write = Callable[[BinaryIO, Iterable[SelectedEvent]], int]


def write_file(path: Path, events: Iterable[SelectedEvent]) -> int:
    """Write the events to ``path`` (``.jsonl``, ``.parquet`` or ``.avro``), and return their number.

    The file appears once it is whole, and then replaces an older one. Raises ReplayError if it cannot be written.
    """
    write = writer_for(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            count = write(file, events)
        os.replace(partial, path)
    except OSError as error:
        raise ReplayError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return count


def writer_for(path: Path) -> _Write:
    """Return the writer for the file's suffix.

    Raises ReplayError for an unknown suffix, and for Parquet without pyarrow.
    """
    if path.suffix not in _WRITERS:
        raise ReplayError(f"{path}: write to a file that ends in {', '.join(_WRITERS)}, or --to train")
    if path.suffix == ".parquet":
        _pyarrow()
    return _WRITERS[path.suffix]


def _json_lines(file: BinaryIO, events: Iterable[SelectedEvent]) -> int:
    count = 0
    for event in events:
        line = json.dumps(event_row(event), default=np.ndarray.tolist, ensure_ascii=False, allow_nan=False)
        file.write(line.encode() + b"\n")
        count += 1
    return count


def _avro(file: BinaryIO, events: Iterable[SelectedEvent]) -> int:
    schema = current("ScoredExperience")
    # By default the marker is random, and equal selections would give different files.
    marker = hashlib.sha256(schema.canonical.encode()).digest()[:16]
    writer = Writer(file, schema.parsed, codec="deflate", sync_interval=AVRO_BLOCK_BYTES, sync_marker=marker)
    count = 0
    for event in events:
        writer.write(to_wire(event.scored))
        count += 1
    writer.flush()
    return count


def _parquet(file: BinaryIO, events: Iterable[SelectedEvent]) -> int:
    arrow, parquet = _pyarrow()
    schema = _arrow_schema(arrow)
    count, rest = 0, iter(events)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := [event_row(event) for event in islice(rest, ROWS)]:
            for values in rows:
                for name in ("rewards", "given_rewards"):
                    values[name] = list(values[name].items())
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _arrow_schema(arrow: Any) -> Any:
    """Return the columns in the order of a row, with types from the events' Avro schemas."""
    arrays = {
        "tokens": arrow.int32(),
        "action_mask": arrow.uint8(),
        "logprobs": arrow.float32(),
        "versions": arrow.int32(),
        "turn_rewards": arrow.float32(),
    }
    types = {"long": arrow.int64(), "int": arrow.int32(), "double": arrow.float64(), "string": arrow.string()}

    def column(name: str, avro: Any) -> Any:
        if name in arrays:
            return arrow.list_(arrays[name])
        if isinstance(avro, list):
            avro = next(kind for kind in avro if kind != "null")
        return arrow.map_(arrow.string(), arrow.float64()) if isinstance(avro, Mapping) else types[avro]

    experience, scored = (current(name).parsed["fields"] for name in ("Experience", "ScoredExperience"))
    own = [("partition", "long"), ("offset", "long"), ("timestamp_ms", "long")]
    own += [(RENAMED.get(f["name"], f["name"]), f["type"]) for f in experience]
    own += [(f["name"], f["type"]) for f in scored if f["name"] != "experience"]
    return arrow.schema([(name, column(name, avro)) for name, avro in (*own, ("recorded_reward", "double"))])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ReplayError(
            "Parquet needs pyarrow: pip install 'stream-rft[parquet]'; or write .jsonl or .avro"
        ) from error
    return pyarrow, pyarrow.parquet


_WRITERS: Mapping[str, _Write] = {".jsonl": _json_lines, ".parquet": _parquet, ".avro": _avro}
