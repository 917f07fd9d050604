"""Reads the rows of a file one by one: JSON lines, Parquet, Arrow, Hugging Face datasets on disk.

pyarrow alone reads a dataset on disk: it is a folder of Arrow streams with a ``state.json`` that names them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft.errors import DataError

ROWS_AT_ONCE = 1024
_STATE, _SPLITS = "state.json", "dataset_dict.json"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read."""

    cause: str
    text: str
    """The row's text, as far as it can be shown."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one file or dataset."""

    total: int
    numbered: Callable[[], Iterator[tuple[int, Row | BadRow]]]
    """Begins at the first row. Numbers count from 1; for JSON lines they are line numbers."""


def open_rows(path: Path, subset: str | None = None) -> Rows:
    """Return the rows of the file or folder ``path``, which must not change while they are read.

    Raises DataError if nothing is there, or nothing of a kind that can be read.
    """
    try:
        if path.is_dir():
            try:
                return _folder(path, subset)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(
                    f"{path.absolute()}: its {_STATE} or {_SPLITS} is not as Hugging Face datasets writes it: {error!r}"
                ) from error
        if subset is not None:
            raise DataError(f"{path} is a file and has no subset {subset!r}; leave subset out")
        if path.suffix in (".jsonl", ".ndjson"):
            return _json_lines(path)
        if path.suffix == ".parquet":
            return _parquet([path])
        if path.suffix == ".arrow":
            return _arrow([path])
    except OSError as error:
        raise DataError(f"cannot read {path.absolute()}: {error.strerror or error}") from error
    if not path.exists():
        raise DataError(f"there is no {path.absolute()}")
    raise DataError(f"{path}: not a .jsonl, .parquet or .arrow file, nor a dataset's folder")


def open_files(files: Sequence[Path]) -> Rows:
    """Return the rows of several files, one file after the other; they are numbered through.

    Raises DataError as :func:`open_rows` does.
    """
    parts = [open_rows(path) for path in files]

    def numbered() -> Iterator[tuple[int, Row | BadRow]]:
        before = 0
        for part in parts:
            for number, row in part.numbered():
                yield before + number, row
            before += part.total

    return Rows(sum(part.total for part in parts), numbered)


def _json_lines(path: Path) -> Rows:
    with path.open("rb") as file:
        total, last = 0, b"\n"
        while block := file.read(1 << 20):
            total, last = total + block.count(b"\n"), block[-1:]

    def numbered() -> Iterator[tuple[int, Row | BadRow]]:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _row(line)

    return Rows(total + (last != b"\n"), numbered)


def _row(line: bytes) -> Row | BadRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON: {error}", line.decode("utf-8", "replace").rstrip("\n"))
    if not isinstance(row, dict):
        return BadRow(f"a JSON {type(row).__name__}, not an object", line.decode("utf-8", "replace").rstrip("\n"))
    return row


def _folder(path: Path, subset: str | None) -> Rows:
    if (path / _SPLITS).is_file():
        names = json.loads((path / _SPLITS).read_text("utf-8"))["splits"]
        if subset is None and len(names) > 1:
            raise DataError(f"{path} has several subsets: set subset to one of {', '.join(names)}")
        if subset is not None and subset not in names:
            raise DataError(f"{path} has no subset {subset!r}; it has {', '.join(names)}")
        return _folder(path / (subset or names[0]), None)
    if subset is not None:
        raise DataError(f"{path} is one dataset and has no subset {subset!r}; leave subset out")
    if (path / _STATE).is_file():
        state = json.loads((path / _STATE).read_text("utf-8"))
        if state.get("_indices_files"):
            raise DataError(f"{path} selects rows by an index; save it again after dataset.flatten_indices()")
        return _arrow([path / file["filename"] for file in state["_data_files"]])
    for pattern, read in (("*.parquet", _parquet), ("*.arrow", _arrow)):
        if files := sorted(path.rglob(pattern)):
            return read(files)
    raise DataError(f"{path} holds neither {_STATE} nor {_SPLITS} of a saved dataset, nor any .parquet or .arrow file")


def _parquet(files: list[Path]) -> Rows:
    arrow = _pyarrow()
    import pyarrow.parquet as parquet

    def numbered() -> Iterator[tuple[int, Row | BadRow]]:
        number = 0
        for file in files:
            try:
                with parquet.ParquetFile(file) as source:
                    for batch in source.iter_batches(ROWS_AT_ONCE):
                        for row in batch.to_pylist():
                            number += 1
                            yield number, row
            except (arrow.ArrowException, OSError) as error:
                raise DataError(f"{file.absolute()} is damaged after row {number}: {error}") from error

    total = 0
    for file in files:
        try:
            total += parquet.read_metadata(file).num_rows
        except arrow.ArrowException as error:
            raise DataError(f"{file.absolute()} is no Parquet file, or is damaged: {error}") from error
    return Rows(total, numbered)


def _arrow(files: list[Path]) -> Rows:
    arrow = _pyarrow()

    def batches() -> Iterator[Any]:
        for file in files:
            try:
                with arrow.memory_map(str(file)) as source, arrow.ipc.open_stream(source) as stream:
                    yield from stream
            except arrow.ArrowException as error:
                raise DataError(f"{file}: not an Arrow stream as Hugging Face datasets writes it: {error}") from error

    def numbered() -> Iterator[tuple[int, Row | BadRow]]:
        number = 0
        for batch in batches():
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                for row in batch.slice(start, ROWS_AT_ONCE).to_pylist():
                    number += 1
                    yield number, row

    return Rows(sum(batch.num_rows for batch in batches()), numbered)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise DataError("Parquet and Arrow need pyarrow: pip install 'stream-rft[parquet]'; or use .jsonl") from error
    return pyarrow
