"""Prints an audit for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumers.audit.report import KINDS, AuditReport, EventName, PublishedBalance, TrainedBalance

_SHOWN = 20
"""Names that are printed of each kind; ``--json`` has them all."""


def show(report: AuditReport, console: Console) -> None:
    """Print the balances, then the problems by name."""
    console.print(f"audit of {report.source}", highlight=False, soft_wrap=True)
    console.print(_published(report.published))
    for balance in report.trained:
        console.print(_trained(balance))
    if report.unchecked:
        _line(console, f"{report.unchecked} references are older than the log and could not be checked", "yellow")
    if report.unreadable_ready:
        _line(console, f"{report.unreadable_ready} events of ready cannot be decoded", "yellow")
    if report.set_aside_steps:
        _line(console, f"{report.set_aside_steps} events of steps are no records, but dead letters", "yellow")
    _names(console, report)
    _problems(console, report)
    _line(console, *(("the log balances", "bold green") if report.ok else ("the log does not balance", "bold red")))


def _published(balance: PublishedBalance) -> Table:
    table = _table("published experiences")
    table.add_row("published", f"{balance.published:,}")
    if balance.deleted:
        table.add_row("deleted by retention since", f"{balance.deleted:,}")
    table.add_section()
    table.add_row("scored", f"{balance.scored:,}")
    _causes(table, "filtered", balance.filtered)
    _causes(table, "dead-lettered", balance.dead_lettered)
    table.add_row("waiting", f"{len(balance.waiting):,}")
    table.add_row("duplicate", f"{len(balance.duplicates):,}")
    _sum(table, balance.accounted, balance.published + balance.deleted)
    return table


def _trained(balance: TrainedBalance) -> Table:
    table = _table(f"scored experiences, trainer {balance.model}, {balance.steps} steps")
    table.add_row("scored", f"{balance.scored:,}")
    if balance.deleted:
        table.add_row("deleted by retention since", f"{balance.deleted:,}")
    table.add_section()
    again = f" (and {balance.reused:,} times again)" if balance.reused else ""
    table.add_row("trained", f"{balance.trained:,}{again}")
    _causes(table, "dropped", balance.dropped)
    table.add_row("evaluated", f"{balance.evaluated:,}")
    table.add_row("buffered", f"{balance.buffered:,}")
    _sum(table, balance.accounted, balance.scored + balance.deleted)
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, min_width=48)
    table.add_column(ratio=1)
    table.add_column(justify="right")
    return table


def _causes(table: Table, row: str, counts: Mapping[str, int]) -> None:
    if not counts:
        table.add_row(row, "0")
    for cause, count in sorted(counts.items()):
        table.add_row(f"{row}: {cause}", f"{count:,}")


def _sum(table: Table, accounted: int, wanted: int) -> None:
    table.add_section()
    difference = accounted - wanted
    note = Text("balanced", "green") if not difference else Text(f"{difference:+,}", "bold red")
    table.add_row(Text.assemble("sum ", note), f"{accounted:,}")


def _named(balance: PublishedBalance) -> tuple[tuple[str, list[EventName]], ...]:
    return ("duplicate", balance.duplicates), ("waiting", balance.waiting), ("spare", balance.spare)


def _names(console: Console, report: AuditReport) -> None:
    for kind, named in _named(report.published):
        for one in named[:_SHOWN]:
            name = one.experience_id or "an event that cannot be decoded"
            _line(console, f"{kind}: {name} (partition {one.partition}, offset {one.offset} of experiences)")
        if len(named) > _SHOWN:
            _line(console, f"{kind}: {len(named) - _SHOWN:,} more, see --json")


def _problems(console: Console, report: AuditReport) -> None:
    for kind, meaning in KINDS.items():
        of_kind = [problem for problem in report.problems if problem.kind == kind]
        if of_kind:
            _line(console, f"{kind} ({len(of_kind):,}): {meaning}", "bold red")
        for problem in of_kind[:_SHOWN]:
            _line(console, f"  {problem.text}")
        if len(of_kind) > _SHOWN:
            _line(console, f"  {len(of_kind) - _SHOWN:,} more, see --json")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)
