"""Prints dead letters for ``rft dlq``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rft.errors import DecodeError
from rft.log.dead_letter_index import DeadLetterIndex, DeadLetterRecord
from rft.log.dead_letters import CONNECT_PREFIX, PREFIX
from rft.log.events import Event

_WIDTH = 200
"""Columns where the output is not a terminal."""


def as_json(index: DeadLetterIndex, letter: DeadLetterRecord) -> dict[str, Any]:
    """Return what a dead letter says as plain values."""
    return {
        "letter": letter.name,
        "state": index.state(letter),
        "time_ms": letter.time_ms,
        "stage": letter.stage,
        "error": letter.error,
        "message": letter.message,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "attempt": letter.attempt,
        "first_failure_ms": letter.first_failure_ms,
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "size_bytes": letter.size_bytes,
    }


def in_full(index: DeadLetterIndex, letter: DeadLetterRecord, event: Event) -> dict[str, Any]:
    """Return the same with headers, value and earlier failures."""
    headers = [
        [name, None if value is None else value.decode("utf-8", "backslashreplace")] for name, value in event.headers
    ]
    return as_json(index, letter) | {
        "headers": headers,
        "value_hex": (event.value or b"")[:256].hex(),
        "record": _record_or_error(event),
        "earlier": [as_json(index, one) for one in index.earlier(letter)],
    }


def show_table(index: DeadLetterIndex, letters: Sequence[DeadLetterRecord], limit: int) -> None:
    """Print a table of the newest ``limit`` dead letters (0: all), and count all of them by cause."""
    if not letters:
        print("no dead letters")
        return
    console = _console()
    shown = letters[-limit:] if limit else letters
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("letter", "time (UTC)", "state", "stage", "from"):
        table.add_column(name, no_wrap=True)
    table.add_column("attempt", justify="right")
    table.add_column("key", overflow="ellipsis", max_width=32, no_wrap=True)
    table.add_column("error", overflow="ellipsis", no_wrap=True)
    for letter in shown:
        table.add_row(
            letter.name,
            _utc(letter.time_ms),
            index.state(letter),
            letter.stage,
            f"{letter.topic} {letter.partition}:{letter.offset}",
            str(letter.attempt),
            "-" if letter.key is None else repr(letter.key)[2:-1],
            f"{letter.error}: {letter.message}",
        )
    console.print(table, markup=False)
    if len(shown) < len(letters):
        console.print(f"and {len(letters) - len(shown)} older ones (--limit 0 lists all)")
    causes = Counter((letter.stage, letter.error) for letter in letters)
    by_cause = ", ".join(f"{count} {stage} {error}" for (stage, error), count in causes.most_common())
    console.print(f"{len(letters)} letters: {by_cause}", markup=False, highlight=False)


def show_in_full(letters: Sequence[dict[str, Any]]) -> None:
    """Print what :func:`in_full` returned for each dead letter."""
    console = _console()
    for letter in letters:
        console.print(f"letter {letter['letter']} ({letter['state']}), {_utc(letter['time_ms'])} UTC", style="bold")
        for one in [*letter["earlier"], letter]:
            console.print(
                f"  attempt {one['attempt']}: {one['stage']}: {one['error']}: {one['message']} "
                f"(from {one['topic']} {one['partition']}:{one['offset']}, letter {one['letter']})",
                markup=False,
                highlight=False,
            )
        console.print(f"  first failure {_utc(letter['first_failure_ms'])} UTC, {letter['size_bytes']} bytes")
        console.print(f"  key {letter['key']!r}", markup=False)
        for name, value in letter["headers"]:
            if not name.startswith((PREFIX, CONNECT_PREFIX)):
                console.print(f"  {name}: {value}", markup=False, highlight=False)
        console.print(f"  value {letter['value_hex']}", markup=False, highlight=False)
        console.print(f"  {letter['record']}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(action: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr if that is a terminal. Yields what to call with (done, total)."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(action, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _record_or_error(event: Event) -> str:
    try:
        return str(event.record())[:4000]
    except DecodeError as error:
        return f"cannot be decoded: {error}"


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def _utc(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
