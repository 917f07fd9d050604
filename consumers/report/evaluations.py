"""Renders the report's cards of held-out sets: pass@k and difficulty. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rft.config import MAIN_SET, Config, EvalSet

Card = tuple[str, str, str]
"""Title, what it shows, content."""


def evaluation_cards(evaluations: Sequence[Mapping[str, Any]], config: Config) -> list[Card]:
    """Render a table of all sets, if it shows more than the accuracy curve, and one a set by difficulty."""
    if not evaluations:
        return []
    sets = config.eval_sets
    cards: list[Card] = []
    if len(sets) > 1 or any(eval_set.samples > 1 for eval_set in sets.values()):
        cards.append(
            (
                "Evaluations",
                "mean ± standard error over tasks; unbiased estimate of pass@k (Chen et al. 2021)",
                _table(("set", "version", "tasks", "accuracy", "pass@k"), [_row(each, sets) for each in evaluations]),
            )
        )
    for name, eval_set in sets.items():
        own = [evaluation for evaluation in evaluations if evaluation["set"] == name]
        classes = list(dict.fromkeys(label for evaluation in own for label in evaluation["by_difficulty"]))
        if len(classes) > 1:
            table = _difficulty_table(own, classes)
            cards.append((f"By difficulty: {eval_set.title}", f"{own[-1]['measure']} by {own[0]['difficulty']}", table))
    return cards


def pass_at_text(evaluation: Mapping[str, Any]) -> str:
    """Return the estimates of pass@k as text: ``pass@1 40.0%, pass@4 71.2%``."""
    return ", ".join(f"pass@{k} {share:.1%}" for k, share in evaluation["pass_at"].items())


def accuracy_text(evaluation: Mapping[str, Any]) -> str:
    """Return accuracy and standard error as text: ``40.0% ± 2.1``; of a mean reward, ``reward 1.250 ± 0.031``."""
    if not evaluation["scored"]:
        return "not scored"
    if evaluation["measure"] != "accuracy":
        return f"reward {evaluation['reward']:.3f} ± {evaluation['standard_error']:.3f}"
    return f"{evaluation['accuracy']:.1%} ± {evaluation['standard_error'] * 100:.1f}"


def _row(evaluation: Mapping[str, Any], sets: Mapping[str, EvalSet]) -> tuple[str, ...]:
    name = evaluation["set"]
    title = "held-out" if name == MAIN_SET else sets[name].title
    accuracy = accuracy_text(evaluation)
    pass_at = pass_at_text(evaluation) if evaluation["samples"] > 1 else ""
    return title, str(evaluation["version"]), f"{evaluation['tasks']:,}", accuracy, pass_at


def _difficulty_table(evaluations: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    first, last = evaluations[0], evaluations[-1]
    rows = []
    for label in classes:
        before, after = (evaluation["by_difficulty"].get(label) for evaluation in (first, last))
        shares = [_score(figures) if figures else "" for figures in (before, after)]
        rows.append((label, f"{(after or before)['tasks']:,}", *shares))
    return _table(("class", "tasks", f"version {first['version']}", f"version {last['version']}"), rows)


def _score(figures: Mapping[str, Any]) -> str:
    accuracy = figures["accuracy"]
    return f"{figures['reward']:.3f}" if accuracy is None else f"{accuracy:.1%}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        f"<tr><td>{escape(row[0])}</td>" + "".join(f'<td class="n">{escape(cell)}</td>' for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{body}</table></div>'
