"""``rft archiver``: runs the role, or copies once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.common import ConfigPath, load

if TYPE_CHECKING:
    from rft.config import Config


def archiver(
    context: typer.Context,
    config: ConfigPath,
    once: Annotated[bool, typer.Option("--once", help="Copy up to the log's present end and exit.")] = False,
) -> None:
    """Copy the topics into Avro files, each event exactly once, until stopped. One for each archive.

    When started again, it continues after the last finished file. The section [archive] of CONFIG sets the place, the
    topics and the size of files.

    Example: rft archiver run.toml --broker.bootstrap_servers kafka:9092 --archive.url s3://bucket/run-7
    """
    loaded = load(config, context)
    from infra.launcher.log_access import reachable_log
    from infra.roles import RunFunction, run_role

    def copy_once(config: Config, stop: threading.Event) -> None:
        from consumers.archiver import run

        run(config, stop, once=True)

    if not once:
        raise typer.Exit(run_role("archiver", loaded))
    function: RunFunction = copy_once
    with reachable_log(loaded, "rft archiver") as loaded:
        code = run_role("archiver", loaded, function)
    raise typer.Exit(code)
