"""``rft audit``."""

from __future__ import annotations

import json

import typer

from infra.commands.common import ArchivePath, AsJson, ConfigPath, load


def audit(context: typer.Context, config: ConfigPath, archive: ArchivePath = None, as_json: AsJson = False) -> None:
    """Prove from the log, id by id, that nothing was lost and nothing trained twice.

    Reads the live log, also during a run. After a run with a local Kafka node, the node is started meanwhile; after one
    with the embedded broker, the run's archive is read.
    Exit code 1 if it does not balance; each problem is named.

    Example: rft audit examples/quickstart/quickstart.toml --json
    """
    loaded = load(config, context)
    from rich.console import Console

    from consumers.audit import audit as make_audit
    from consumers.audit.audit import committed_by_processors
    from consumers.audit.table import show
    from infra.launcher.log_access import reachable_log
    from rft.log.live_view import LiveView
    from rft.log.opening import open_log

    with reachable_log(loaded, "rft audit", archive=archive) as loaded, open_log(loaded, archive) as view:
        committed = committed_by_processors(loaded, view) if isinstance(view, LiveView) else None
        report = make_audit(loaded, view, committed)
    if as_json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        show(report, Console())
    raise typer.Exit(0 if report.ok else 1)
