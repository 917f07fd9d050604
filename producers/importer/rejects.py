"""Rows that cannot be used: a file of them with number and cause, and a sample for the operator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rft.data.reading import BadRow, Row
from rft.errors import DataError

TOO_MANY = 100
"""Rows rejected before the first was good: the columns are mapped wrongly, and there is no use in going on."""


class Rejects:
    """Writes ``<file>.rejected.jsonl`` when the first row is rejected; an old one of that name goes at the start."""

    def __init__(self, path: Path, hopeless: Callable[[], bool]) -> None:
        """``hopeless`` says whether no row was good so far."""
        self.path = path
        self.causes: Counter[str] = Counter()
        self._hopeless = hopeless
        self._file: TextIOWrapper | None = None

    def add(self, number: int, row: Row | BadRow, cause: str) -> None:
        """Reject a row. Raises DataError when the file cannot be written, or when all rows so far were rejected."""
        self.causes[cause] += 1
        content: Any = row.text if isinstance(row, BadRow) else row
        line = json.dumps({"row": number, "cause": cause, "content": content}, ensure_ascii=False, default=str)
        try:
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8")
            self._file.write(line + "\n")
        except OSError as error:
            raise DataError(
                f"rejected rows cannot be written to {self.path}: {error.strerror}; name another file as rejected"
            ) from error
        if self.causes.total() >= TOO_MANY and self._hopeless():
            raise DataError(
                f"the first {TOO_MANY} rows were all rejected, the last because it {cause}: see {self.path}"
            )

    def __enter__(self) -> Self:
        with suppress(OSError):
            self.path.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
