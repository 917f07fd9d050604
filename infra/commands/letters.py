"""How ``rft dlq`` reads times and prints letters."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from rft.errors import DecodeError
from rft.log.dead_letter_index import DeadLetterIndex, Letter
from rft.log.events import Event

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WIDE = 200


def moment(text: str | None, option: str) -> int | None:
    """Unix time in ms of an ISO time (UTC unless it names an offset) or an age."""
    if text is None:
        return None
    age = _AGE.fullmatch(text)
    if age:
        return int((time.time() - float(age[1]) * _SECONDS[age[2]]) * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: write 2026-05-01T13:30 (UTC) or an age: 90m, 2h, 7d") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def show_letters(book: DeadLetterIndex, letters: Sequence[Letter], limit: int) -> None:
    """A table of the newest, and counts by cause of all."""
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
            book.state(letter),
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
    """Each letter with its headers and what can be made of its value."""
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
            if not name.startswith("rft.error."):
                console.print(f"  {name}: {value}", markup=False, highlight=False)
        console.print(f"  value {letter['value_hex']}", markup=False, highlight=False)
        console.print(f"  {letter['record']}", markup=False, highlight=False, soft_wrap=True)


def record_or_error(event: Event) -> str:
    """The decoded value as text, or why it cannot be decoded."""
    try:
        return str(event.record())[:4000]
    except DecodeError as error:
        return f"cannot be decoded: {error}"


def earlier(book: DeadLetterIndex, letter: Letter) -> list[Letter]:
    """The letters of the same event's earlier attempts, the first first."""
    chain: list[Letter] = []
    seen = {letter.place}
    while letter.retry_of in book.letters and letter.retry_of not in seen:
        letter = book.letters[letter.retry_of]
        seen.add(letter.place)
        chain.insert(0, letter)
    return chain


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    with Bar(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def _utc(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
