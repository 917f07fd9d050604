"""``rft eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.common import AsJson, ConfigPath, before_start, load

if TYPE_CHECKING:
    from rft.config import Config


def evaluate(
    context: typer.Context,
    config: ConfigPath,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHICH",
            help="start, newest, v12, versions (all on disk), step-50, checkpoints, a model folder or owner/name of "
            "the hub; repeat it for several. By default start and newest.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME", help="Only this held-out set; may be repeated.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw accuracy by model: FILE.svg or FILE.html.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate models on the held-out sets of CONFIG: accuracy, mean@k, pass@k and difficulty in one table.

    Works on this machine, without broker or log, also during a run. Answers are scored as in a run.

    Example: rft eval examples/quickstart/quickstart.toml --weights start --weights versions --plot bench.html
    """
    loaded = load(config, context)
    from rich.console import Console

    from infra.hub_downloads import fetch_all, pinned
    from rft.errors import ConfigError

    unknown = sorted(set(sets or ()) - loaded.eval_sets.keys())
    if unknown or not loaded.eval_sets:
        known = ", ".join(loaded.eval_sets) or "none: set eval.tasks or [eval.sets.<name>]"
        raise ConfigError(f"--set {', '.join(unknown)} is no held-out set; the configuration has {known}")
    if plot is not None and plot.suffix not in (".svg", ".html"):
        raise typer.BadParameter(f"--plot {plot}: write FILE.svg or FILE.html")
    loaded, console = pinned(loaded), Console(stderr=True)
    # What the checks read. The weights come after them.
    fetch_all(loaded, console, with_weights=False, imports=False)
    before_start(loaded, "eval")
    # These import torch.
    from rich.table import Table

    from consumers.evaluation import evaluate_models
    from consumers.evaluation.models import find_models
    from infra.commands.stages import Stages

    loaded = fetch_all(loaded, console, imports=False)
    models = find_models(loaded, [_local(loaded, name) for name in weights or ["start", "newest"]])
    with Stages(Console(stderr=True)) as stages:
        result = evaluate_models.evaluate_models(loaded, models, sets, stages)
    if plot is not None:
        drawn = evaluate_models.page(result) if plot.suffix == ".html" else evaluate_models.standalone_svg(result)
        plot.write_text(drawn, "utf-8")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("set", "model", "tasks", "accuracy", "pass@k"):
        table.add_column(head, justify="right" if head in ("tasks", "accuracy") else "left", no_wrap=True)
    for row in evaluate_models.table_rows(result):
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    if plot is not None:
        print(f"plot: {plot}")


def _local(config: Config, name: str) -> str:
    """Return ``name``, or the folder of the hub's model if it names one, downloaded."""
    from rich.console import Console

    from infra.hub_downloads import fetch_all
    from rft.hub.repository import model_repository

    policy = config.policy.model_copy(update={"model": name, "revision": None})
    if model_repository(policy) is None:
        return name
    named = config.model_copy(update={"policy": policy, "trainers": {}})
    return fetch_all(named, Console(stderr=True), tasks=False, imports=False).policy.model
