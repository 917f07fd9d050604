"""Cards of the report that tell of held-out sets: pass@k and difficulty. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rft.config import MAIN_SET, Config, EvalSet

Card = tuple[str, str, str]
"""Title, what it shows, content."""


def evaluation_cards(evaluations: Sequence[Mapping[str, Any]], config: Config) -> list[Card]:
    """A table of all sets where it tells more than the curve, and one for each set by difficulty."""
    if not evaluations:
        return []
    sets = config.eval_sets
    cards: list[Card] = []
    if len(sets) > 1 or any(chosen.samples > 1 for chosen in sets.values()):
        cards.append(
            (
                "Evaluations",
                "mean ± standard error over tasks; pass@k estimated without bias (Chen et al. 2021)",
                _table(("set", "version", "tasks", "accuracy", "pass@k"), [_row(one, sets) for one in evaluations]),
            )
        )
    for name, chosen in sets.items():
        own = [one for one in evaluations if one["set"] == name]
        classes = list(dict.fromkeys(label for one in own for label in one["by_difficulty"]))
        if len(classes) > 1:
            cards.append((f"By difficulty: {chosen.title}", f"accuracy by {own[0]['difficulty']}", _by(own, classes)))
    return cards


def estimates(one: Mapping[str, Any]) -> str:
    """``pass@1 40.0%, pass@4 71.2%``."""
    return ", ".join(f"pass@{k} {share:.1%}" for k, share in one["pass_at"].items())


def _row(one: Mapping[str, Any], sets: Mapping[str, EvalSet]) -> tuple[str, ...]:
    title = "held-out" if one["set"] == MAIN_SET else sets[one["set"]].title
    accuracy = f"{one['accuracy']:.1%} ± {one['standard_error'] * 100:.1f}"
    return title, str(one["version"]), f"{one['tasks']:,}", accuracy, estimates(one) if one["samples"] > 1 else ""


def _by(own: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    first, last = own[0], own[-1]
    rows = []
    for label in classes:
        before, after = (one["by_difficulty"].get(label) for one in (first, last))
        shares = [f"{found['accuracy']:.1%}" if found else "" for found in (before, after)]
        rows.append((label, f"{(after or before)['tasks']:,}", *shares))
    return _table(("class", "tasks", f"version {first['version']}", f"version {last['version']}"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><td>{escape(row[0])}</td>" + "".join(f'<td class="n">{escape(cell)}</td>' for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{body}</table></div>'
