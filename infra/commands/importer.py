"""``rft import`` and the role ``rft importer``."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from typing import Annotated

import typer

from infra.commands.common import AsJson, ConfigPath, before_start, load


def importer(context: typer.Context, config: ConfigPath) -> None:
    """Publish the files of [[imports]], as a role beside others. Ends when all of it is on the log.

    Example: rft importer run.toml --broker.bootstrap_servers kafka:9092
    """
    loaded = load(config, context)
    before_start(loaded, "importer")
    from infra.roles import run_role

    raise typer.Exit(run_role("importer", loaded))


def import_files(
    context: typer.Context,
    config: ConfigPath,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Only this import; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish files of tasks, demonstrations or preferences ([[imports]]) to the log, each row once.

    When started again, even after a kill, it publishes what is missing and nothing twice. Rows that cannot be used go
    to <file>.rejected.jsonl with their cause. If a run is in progress, its broker is used; otherwise a local Kafka node
    is started meanwhile.

    Example: rft import run.toml --broker.kind external --broker.bootstrap_servers kafka:9092
    """
    loaded = load(config, context)
    from rich.console import Console

    from infra.commands.stages import Stages
    from infra.launcher.folder import with_running_broker
    from infra.launcher.log_access import reachable_log
    from rft.errors import BrokerError, ConfigError

    known = [source.name for source in loaded.imports]
    unknown = sorted(set(only or ()) - set(known))
    if unknown or not known:
        names = ", ".join(known) or "none"
        problem = f"has no import {unknown[0]!r}" if unknown else "names nothing to import"
        raise ConfigError(f"{config} {problem}; its [[imports]] are: {names}")
    before_start(loaded, "importer")
    if loaded.broker.kind == "embedded" and with_running_broker(loaded).broker.bootstrap_servers is None:
        raise BrokerError(
            f"no run of {config} is in progress, and its embedded broker ends with its run. Start `rft run`, which "
            "imports by itself, or name a cluster (broker.kind = 'external', broker.bootstrap_servers)"
        )
    from infra.hub_downloads import fetch_all, pinned
    from producers.importer.shell import Import
    from rft.log.access import prepare_topics

    chosen = [source for source in loaded.imports if only is None or source.name in only]
    # All of them are imported now, those that `rft run` leaves out (manual) too.
    loaded = loaded.model_copy(update={"imports": [source.model_copy(update={"manual": False}) for source in chosen]})
    loaded = fetch_all(pinned(loaded), Console(stderr=True), with_weights=False, tasks=False)
    results = {}
    with reachable_log(loaded, "rft import", create=True) as loaded, Stages(Console(stderr=True)) as stages:
        prepare_topics(loaded, "importer")
        for source in loaded.imports:
            results[source.name] = Import(loaded, source).run(threading.Event(), stages(f"import {source.name}"))
    if as_json:
        print(json.dumps({name: asdict(counts) for name, counts in results.items()}, indent=1))
        return
    for source in loaded.imports:
        if source.name in results:
            counts = results[source.name]
            where = f" (see {source.rejected_path})" if counts.rejected else ""
            print(f"{source.name}: {counts}{where}")
