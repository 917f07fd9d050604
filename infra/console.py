"""Prints the results of ``rft doctor`` and ``rft topics``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.preflight.contract import Finding
from rft.log.topic_table import TopicRow

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_WIDE = 160
"""Columns where there is no terminal: the lines are read by programs then."""


def show_findings(findings: Iterable[Finding], console: Console | None = None) -> int:
    """Print each finding as it comes, with its advice. Return the exit code: 0 if nothing failed."""
    console = console or Console()
    failed: list[Finding] = []
    for finding in findings:
        failed += [finding] if finding.level == "fail" else []
        line = Text.assemble((f"{finding.level:<5}", _STYLE[finding.level]), finding.what)
        if finding.advice:
            line.append(f": {finding.advice}", style="dim" if finding.level == "ok" else "")
        console.print(line, soft_wrap=True)
    if failed:
        console.print(f"Fix the {len(failed)} failed checks before you start a run.", style="red")
    return max((finding.exit_code for finding in failed), default=0)


def show_topics(rows: Sequence[TopicRow], console: Console | None = None) -> None:
    """Print the topics as a table."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("topic", style="bold", no_wrap=True)
    for name in ("partitions", "events", "size"):
        table.add_column(name, justify="right")
    table.add_column("lag by reader")
    for row in rows:
        if not row.exists:
            table.add_row(row.topic, Text("missing", style="yellow"))
            continue
        size = "-" if row.size_bytes is None else _size(row.size_bytes)
        lags = ", ".join(f"{group} {lag:,}" for group, lag in row.lags.items())
        table.add_row(row.topic, str(row.partitions), f"{row.events:,}", size, lags or "-")
    console.print(table)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
