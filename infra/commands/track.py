"""``rft track`` and the role ``rft tracker``."""

from __future__ import annotations

import typer

from infra.commands.common import ArchivePath, ConfigPath, load

WAIT_S = 300.0
"""How long slow trackers may take to accept everything."""


def track(context: typer.Context, config: ConfigPath, archive: ArchivePath = None) -> None:
    """Send a run's steps and evaluations to the trackers of CONFIG: now, later, or again.

    Reads the live log; with an embedded broker that has ended, the run's archive. What a tracker already has of this
    run is not doubled. Exit code 1 if a tracker did not take everything.

    Example: rft track examples/quickstart/quickstart.toml --trackers.use '["tensorboard", "jsonl"]'
    """
    loaded = load(config, context)
    from rich.console import Console

    from consumers.tracker import track as send
    from infra.commands.stages import Stages
    from infra.launcher.log_access import reachable_log
    from infra.roles import configure_logging
    from rft.errors import ConfigError
    from rft.log.opening import open_log
    from rft.telemetry.opening import run_info

    if not loaded.trackers.use:
        raise ConfigError("trackers.use is empty. Name tensorboard, wandb, mlflow or jsonl")
    configure_logging("track")
    with (
        reachable_log(loaded, "rft track", archive=archive) as loaded,
        open_log(loaded, archive) as view,
        Stages(Console(stderr=True)) as stages,
    ):
        sent = send(loaded, view, WAIT_S, stages("reading"))
    names, folder = ", ".join(loaded.trackers.use), run_info(loaded).folder
    print(f"{sent.points:,} points of {view.name} to {names}; what they keep here is in {folder}")
    if sent.unreadable:
        print(f"{sent.unreadable:,} events could not be decoded: written by another version, or malformed")
    for name in sent.incomplete:
        print(f"{name} did not take all of them")
    raise typer.Exit(1 if sent.incomplete else 0)


def tracker(context: typer.Context, config: ConfigPath) -> None:
    """Feed the trackers of CONFIG from the log during a run. `rft run` starts this role if trackers.use names any.

    Example: rft tracker run.toml --broker.bootstrap_servers kafka:9092 --trackers.use '["wandb"]'
    """
    loaded = load(config, context)
    from infra.roles import run_role

    raise typer.Exit(run_role("tracker", loaded))
