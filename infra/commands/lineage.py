"""``rft lineage``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from infra.commands.common import ArchivePath, AsJson, ConfigPath, load


def lineage(
    context: typer.Context,
    config: ConfigPath,
    weights: Annotated[int | None, typer.Option(metavar="VERSION", help="Which events made this version?")] = None,
    step: Annotated[int | None, typer.Option(metavar="N", help="Which events did this step train?")] = None,
    experience: Annotated[
        str | None, typer.Option(metavar="ID", help="Which weights wrote it, and what became of it?")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="ID", help="What was made of this task (group)?")] = None,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Follow weights back to the events that made them, or an event on to the weights that it changed.

    Give one of --weights, --step, --experience, --task. Weights and steps are those of trainer.model_key.
    Reads the live log; with an embedded broker that has ended, the run's archive.

    Example: rft lineage examples/quickstart/quickstart.toml --weights 12
    """
    options = {"weights": weights, "step": step, "experience": experience, "task": task}
    given: list[tuple[str, Any]] = [(name, value) for name, value in options.items() if value is not None]
    if len(given) != 1:
        raise typer.BadParameter("give one of --weights, --step, --experience, --task")
    loaded = load(config, context)
    from rich.console import Console

    from consumers.lineage import table, trace_experience, trace_step, trace_task, trace_weights
    from infra.launcher.log_access import reachable_log
    from rft.log.opening import open_log

    queries: dict[str, tuple[Any, Any]] = {
        "weights": (trace_weights, table.show_weights),
        "step": (trace_step, table.show_step),
        "experience": (trace_experience, table.show_experience),
        "task": (trace_task, table.show_task),
    }
    [(name, value)] = given
    trace, show = queries[name]
    with reachable_log(loaded, "rft lineage", archive=archive) as loaded, open_log(loaded, archive) as view:
        answer = trace(loaded, view, value)
    if as_json:
        print(json.dumps(answer.to_json(), indent=1))
    else:
        console = Console()
        show(answer, console if console.is_terminal else Console(width=160))
