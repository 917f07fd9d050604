"""Shows the progress of a command that works in stages: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

REFRESH_S = 0.1
LINE_EVERY_S = 10.0


class Stages:
    """Begins a stage when called with its name, and returns what to call with (done, total) as often as you like."""

    def __init__(self, console: Console, *, sizes: bool = False) -> None:
        """``sizes``: what is counted are bytes."""
        self._console = console
        self._text = decimal if sizes else "{:,}".format
        count = DownloadColumn() if sizes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __call__(self, name: str) -> Callable[[int, int], None]:
        """Begin a stage."""
        task = self._progress.add_task(name, total=None)
        every = REFRESH_S if self._console.is_terminal else LINE_EVERY_S
        shown_at = time.monotonic()
        ended = False

        def update(done: int, total: int) -> None:
            nonlocal shown_at, ended
            now = time.monotonic()
            if ended or (done < total and now - shown_at < every):
                return
            shown_at, ended = now, done >= total
            self._progress.update(task, completed=done, total=total)
            if not self._console.is_terminal:
                self._console.print(f"{name}: {self._text(done)} of {self._text(total)}", highlight=False)

        return update

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
