"""Writes rows that cannot be used to a file, with number and cause, and counts the causes."""

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
"""Rejected rows before the first good one at which the import fails: the columns are mapped wrongly."""


class Rejects:
    """Writes ``<file>.rejected.jsonl`` when the first row is rejected. An old file of that name is removed first."""

    def __init__(self, path: Path, none_good: Callable[[], bool]) -> None:
        """``none_good`` returns whether no row was good so far."""
        self.path = path
        self.causes: Counter[str] = Counter()
        self._none_good = none_good
        self._file: TextIOWrapper | None = None

    def add(self, number: int, row: Row | BadRow, cause: str) -> None:
        """Reject a row. Raises DataError when the file cannot be written, or when all rows so far were rejected."""
        self.causes[cause] += 1
        content: Any = row.text if isinstance(row, BadRow) else row
        line = json.dumps({"row": number, "cause": cause, "content": content}, ensure_ascii=False, default=str)
        try:
            if self._file is None:
                # A lone surrogate, which no UTF-8 can hold, stands there as the escape that JSON has for it.
                self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace")
            self._file.write(line + "\n")
        except OSError as error:
            raise DataError(
                f"rejected rows cannot be written to {self.path}: {error.strerror}. Set rejected to another file."
            ) from error
        if self.causes.total() >= TOO_MANY and self._none_good():
            raise DataError(
                f"the first {TOO_MANY} rows were all rejected, the last because it {cause}. See {self.path}."
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
