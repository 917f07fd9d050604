"""Says how a run ended, and what its roles warned of, for ``report.json`` and ``report.html``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from rft.telemetry.notes import Note

State = Literal["failed", "interrupted"]
MOST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a launch ended that did not finish its run."""

    state: State
    cause: str = ""
    """One line."""


def outcome_figures(*, finished: bool, end: RunEnd | None) -> dict[str, str]:
    """Return ``outcome`` and ``cause`` of the report. A run that goes on, or that was killed, is ``unfinished``."""
    if finished:
        return {"outcome": "finished", "cause": ""}
    return {"outcome": end.state, "cause": end.cause} if end else {"outcome": "unfinished", "cause": ""}


def note_rows(notes: Mapping[str, Sequence[Note]]) -> list[dict[str, Any]]:
    """Return the warnings and errors of all roles, errors first, then the most frequent."""
    rows = [
        {
            "role": role,
            "level": note.level,
            "text": note.text,
            "count": note.count,
            "first": note.first,
            "last": note.last,
        }
        for role, own in notes.items()
        for note in own
    ]
    return sorted(rows, key=lambda row: (row["level"] != "error", -row["count"]))


def outcome_section(report: Mapping[str, Any]) -> str:
    """Render why the run failed, what it says about its learning, and the roles' warnings; empty if all went well."""
    parts = []
    if report["cause"]:
        parts.append(f'<div class="card bad"><h2>Why it {escape(report["outcome"])}</h2>{_text(report["cause"])}</div>')
    if report["learning"]:
        items = "".join(f"<li>{escape(line)}</li>" for line in report["learning"])
        parts.append(f'<div class="card warn"><h2>What it learned</h2><ul>{items}</ul></div>')
    notes = [row for row in report["notes"] if row["text"] not in report["cause"]]
    if notes:
        shown = notes[:MOST_SHOWN]
        rows = "".join(
            f'<tr><td class="{row["level"]}">{row["level"]}</td><td class="role">{escape(row["role"])}</td>'
            f'<td class="text">{escape(row["text"])}</td><td class="n">{row["count"]:,}</td></tr>'
            for row in shown
        )
        more = len(notes) - len(shown)
        last = f'<p class="dim">and {more} more, in report.json</p>' if more else ""
        parts.append(
            '<div class="card"><h2>Warnings and errors<small>of the roles, each kind once</small></h2>'
            '<div class="scroll"><table><thead><tr><th></th><th>role</th><th>text</th><th>times</th></tr></thead>'
            f"{rows}</table></div>{last}</div>"
        )
    return "".join(parts)


def _text(text: str) -> str:
    return f'<p class="text">{escape(text)}</p>'
