"""Rows are the same in every format; an error says what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rft.data.reading import BadRow, open_rows
from rft.errors import DataError

ROWS: list[dict[str, Any]] = [{"prompt": f"p{i}", "n": i, "talk": [{"role": "user", "content": "x"}]} for i in range(7)]


def saved_dataset(folder: Path, rows: list[dict[str, Any]], shards: int = 2) -> Path:
    """Write a dataset as ``datasets.Dataset.save_to_disk`` does."""
    folder.mkdir(parents=True)
    table, files = pa.Table.from_pylist(rows), []
    for shard in range(shards):
        name = f"data-{shard:05d}-of-{shards:05d}.arrow"
        part = table.slice(shard * len(rows) // shards, (shard + 1) * len(rows) // shards - shard * len(rows) // shards)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(part, max_chunksize=2)
        files.append({"filename": name})
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_format_type": None}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def make(kind: str, folder: Path) -> Path:
    if kind == "jsonl":
        path = folder / "x.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
        return path
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "x.parquet", row_group_size=3)
        return folder / "x.parquet"
    if kind == "parquet folder":
        (folder / "data").mkdir()
        for part, rows in enumerate((ROWS[:4], ROWS[4:])):
            pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"train-{part}.parquet")
        return folder
    if kind == "dataset":
        return saved_dataset(folder / "d", ROWS)
    saved_dataset(folder / "dd" / "train", ROWS)
    saved_dataset(folder / "dd" / "test", ROWS[:1], 1)
    (folder / "dd" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder / "dd"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "parquet folder", "dataset", "datasets"])
def test_every_file_format_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    rows = open_rows(make(kind, tmp_path), "train" if kind == "datasets" else None)
    assert rows.total == len(ROWS)
    assert list(rows.numbered()) == list(enumerate(ROWS, 1)) == list(rows.numbered())


def test_a_line_that_is_not_an_object_is_a_bad_row_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a":\n[1]\n\n{"a": 2}\n')
    found = list(open_rows(tmp_path / "x.jsonl").numbered())
    assert [number for number, _ in found] == [1, 2, 3, 5]
    assert [isinstance(row, BadRow) for _, row in found] == [False, True, True, False]
    assert found[1][1].cause.startswith("not JSON")
    assert found[2][1].cause == "a JSON list, not an object"


@pytest.mark.parametrize(
    ("name", "subset", "message"),
    [
        ("nothing.jsonl", None, "cannot read .*nothing.jsonl"),
        ("x.csv", None, "not a .jsonl, .parquet or .arrow file"),
        ("empty", None, "holds neither state.json nor"),
        ("dd", None, "several subsets: set subset to one of train, test"),
        ("dd", "dev", "no subset 'dev'; it has train, test"),
        ("torn.parquet", None, r"torn\.parquet is no Parquet file, or is damaged|cannot read"),
        ("odd", None, r"odd: its state.json or dataset_dict.json is not as Hugging Face datasets writes it"),
    ],
)
def test_unreadable_files_give_errors_with_advice(name: str, subset: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more of it")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "state.json").write_text('{"files": 3}')
    make("datasets", tmp_path)
    with pytest.raises(DataError, match=message):
        open_rows(tmp_path / name, subset)


def test_a_parquet_file_that_is_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"a": [str(n) * 50 for n in range(2000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.parquet is damaged after row 0"):
        list(open_rows(path).numbered())
