"""Evaluates several models on the held-out sets, and renders the result as table, plot and page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from consumers.evaluation import Stage
from consumers.evaluation.generation import HeldOutEvaluator
from consumers.evaluation.models import NamedModel
from consumers.report.charts import Line, line_chart
from consumers.report.evaluations import accuracy_text, pass_at_text
from rft.config import Config
from rft.errors import ConfigError
from rft.evaluation.tally import Tally, difficulty_classes


def evaluate_models(
    config: Config, models: Sequence[NamedModel], names: Sequence[str] | None, stage: Stage
) -> dict[str, Any]:
    """Evaluate every model on the sets ``names`` (all sets if None). Return plain values for JSON.

    Difficulty classes that depend on a first evaluation come from the first model.

    Raises ConfigError if tasks or rewards cannot be used, PolicyError if a model cannot.
    """
    if config.rollout.agent or config.rollout.command:
        raise ConfigError(
            "`rft eval` runs workflows only: the explorers of a run evaluate rollout.agent and rollout.command"
        )
    evaluator = HeldOutEvaluator(config, names)
    tallies: list[dict[str, Tally]] = []
    seconds = []
    for model in models:
        began = time.monotonic()
        tallies.append(evaluator.tallies(model.folder, stage(model.name)))
        seconds.append(round(time.monotonic() - began, 3))
    rows = []
    for name, eval_set in evaluator.sets.items():
        classes = difficulty_classes(eval_set, [tally[name] for tally in tallies])
        for model, tally in zip(models, tallies, strict=True):
            rows.append(
                {
                    "set": name,
                    "model": model.name,
                    "folder": str(model.folder.absolute()),
                    "samples": eval_set.samples,
                    "temperature": eval_set.temperature,
                    "difficulty": classes.by,
                    **tally[name].result(eval_set, classes),
                }
            )
    return {
        "run": config.run.name,
        "seed": config.run.seed,
        "results": rows,
        "seconds": {model.name: taken for model, taken in zip(models, seconds, strict=True)},
    }


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return set, model, tasks, accuracy ± standard error and pass@k of each row as text."""
    return [
        (
            row["set"],
            row["model"],
            f"{row['tasks']:,}",
            accuracy_text(row),
            pass_at_text(row) if row["samples"] > 1 else "",
        )
        for row in result["results"]
    ]


def plot(result: Mapping[str, Any]) -> str:
    """Render the accuracy of each set over the models, in their order, as SVG."""
    models = list(result["seconds"])
    by_set: dict[str, list[tuple[float, float]]] = {}
    for row in result["results"]:
        if row["accuracy"] is None:
            continue
        by_set.setdefault(row["set"], []).append((float(models.index(row["model"])), row["accuracy"]))
    lines = [Line(name, points, "cabed"[at % 5], marks=True) for at, (name, points) in enumerate(by_set.items())]
    ticks: dict[float, str] = dict(enumerate(models))
    return line_chart(lines, x_label="model", y_range=(0, 1), percent=True, x_names=ticks)


def page(result: Mapping[str, Any]) -> str:
    """Render plot and table as one HTML file that needs no network."""
    style = files("consumers.report").joinpath("page.css").read_text(encoding="utf-8")
    head = "".join(f"<th>{heading}</th>" for heading in ("set", "model", "tasks", "accuracy", "pass@k"))
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table_rows(result))
    title = escape(f"{result['run']} · evaluation")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
{style}</style></head><body><main><header><h1>{title}</h1></header>
<div class="card"><h2>Held-out accuracy</h2>{plot(result)}</div>
<div class="card"><div class="scroll"><table><thead><tr>{head}</tr></thead>{rows}</table></div></div>
</main></body></html>
"""


def standalone_svg(result: Mapping[str, Any]) -> str:
    """Render the plot as a standalone SVG file, with its style inside."""
    style = files("consumers.report").joinpath("page.css").read_text(encoding="utf-8")
    svg, _, _ = plot(result).partition("</svg>")
    head, _, rest = svg.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="840"><style>{style}</style>{rest}</svg>\n'
