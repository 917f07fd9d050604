"""Several models on all held-out sets: the numbers, and what to show of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from consumers.evaluation.generation import HeldOut
from consumers.evaluation.models import Candidate
from consumers.report.charts import Line, line_chart
from consumers.report.evaluations import estimates
from rft.config import Config
from rft.evaluation.tally import Tally, classes_of

Stage = Callable[[str], Callable[[int, int], None]]
"""Begins a stage of that name and returns what is told of its progress: (done, total)."""


def bench(config: Config, models: Sequence[Candidate], names: Sequence[str] | None, stage: Stage) -> dict[str, Any]:
    """Ask every model all tasks of the sets ``names`` (all sets if None); returns plain values for JSON.

    Difficulty classes by the first evaluation are those of the first model.

    Raises ConfigError when tasks or rewards cannot be used, PolicyError when a model cannot.
    """
    held_out = HeldOut(config, names)
    tallies: list[dict[str, Tally]] = []
    seconds = []
    for model in models:
        began = time.monotonic()
        tallies.append(held_out.tallies(model.folder, stage(model.name)))
        seconds.append(round(time.monotonic() - began, 3))
    rows = []
    for name, chosen in held_out.sets.items():
        classes = classes_of(chosen, [tally[name] for tally in tallies])
        for model, tally in zip(models, tallies, strict=True):
            rows.append(
                {
                    "set": name,
                    "model": model.name,
                    "folder": str(model.folder.absolute()),
                    "samples": chosen.samples,
                    "temperature": chosen.temperature,
                    "difficulty": classes.by,
                    **tally[name].result(chosen, classes),
                }
            )
    return {
        "run": config.run.name,
        "seed": config.run.seed,
        "results": rows,
        "seconds": {model.name: taken for model, taken in zip(models, seconds, strict=True)},
    }


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(set, model, tasks, accuracy ± standard error, pass@k) for each row."""
    return [
        (
            row["set"],
            row["model"],
            f"{row['tasks']:,}",
            f"{row['accuracy']:.1%} ± {row['standard_error'] * 100:.1f}",
            estimates(row) if row["samples"] > 1 else "",
        )
        for row in result["results"]
    ]


def plot(result: Mapping[str, Any]) -> str:
    """An SVG: accuracy of each set over the models in their order."""
    models = list(result["seconds"])
    by_set: dict[str, list[tuple[float, float]]] = {}
    for row in result["results"]:
        by_set.setdefault(row["set"], []).append((float(models.index(row["model"])), row["accuracy"]))
    lines = [Line(name, points, "cabed"[at % 5], marks=True) for at, (name, points) in enumerate(by_set.items())]
    ticks: dict[float, str] = dict(enumerate(models))
    return line_chart(lines, x_label="model", y_range=(0, 1), percent=True, x_names=ticks)


def page(result: Mapping[str, Any]) -> str:
    """The plot and the table as one HTML file that needs no network."""
    style = files("consumers.report").joinpath("page.css").read_text(encoding="utf-8")
    heads = "".join(f"<th>{head}</th>" for head in ("set", "model", "tasks", "accuracy", "pass@k"))
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table_rows(result))
    title = escape(f"{result['run']} · evaluation")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
{style}</style></head><body><main><header><h1>{title}</h1></header>
<div class="card"><h2>Held-out accuracy</h2>{plot(result)}</div>
<div class="card"><div class="scroll"><table><thead><tr>{heads}</tr></thead>{rows}</table></div></div>
</main></body></html>
"""


def standalone_svg(result: Mapping[str, Any]) -> str:
    """The plot as a file of its own, with its style inside."""
    style = files("consumers.report").joinpath("page.css").read_text(encoding="utf-8")
    drawn, _, _ = plot(result).partition("</svg>")
    head, _, rest = drawn.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="840"><style>{style}</style>{rest}</svg>\n'
