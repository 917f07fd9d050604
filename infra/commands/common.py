"""Defines the arguments that sub-commands share, and reads configurations and times."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.preflight.contract import Role
    from rft.config import Config


class EmitFormat(StrEnum):
    """Formats of definitions (:mod:`infra.definitions`)."""

    shell = "shell"
    strimzi = "strimzi"
    terraform = "terraform"


ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}
WholeConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML configuration.", show_default=False)]
ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="TOML configuration. If it has stages: the stage begun last, or that of `--stage NAME`.",
        show_default=False,
    ),
]
ArchivePath = Annotated[
    str | None,
    typer.Option("--archive", metavar="PATH", help="Read this archive (folder or URL) instead of the live log."),
]
ClusterName = Annotated[
    str, typer.Option("--cluster", metavar="NAME", help="With --emit strimzi: the Kafka cluster's name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Not older than: 2026-05-01T13:30 (UTC) or an age: 90m, 2h, 7d."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Older than that.")]

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def load(path: Path, context: typer.Context) -> Config:
    """Load the configuration with the settings that follow it on the command line; of one with stages, one stage.

    Raises ConfigError if it is wrong.
    """
    from rft.errors import ConfigError

    arguments, name = list(context.args), None
    if "--stage" in arguments:
        at = arguments.index("--stage")
        if at + 1 == len(arguments):
            raise ConfigError("--stage has no value: write --stage NAME")
        name = arguments[at + 1]
        del arguments[at : at + 2]
    loaded = load_whole(path, context, arguments)
    if loaded.stages:
        from infra.launcher.staging import one_stage

        return one_stage(loaded, name)
    if name is not None:
        raise ConfigError(f"--stage {name}: {path} has no [[stages]]")
    return loaded


def load_whole(path: Path, context: typer.Context, arguments: Sequence[str] | None = None) -> Config:
    """Load the configuration with all of its stages. Raises ConfigError if it is wrong."""
    from rft.config_sources import load_config
    from rft.errors import ConfigError
    from rft.plugins import add_folder

    if str(path).startswith("-"):
        raise ConfigError(f"CONFIG comes before settings: rft {context.info_name} CONFIG {path} …")
    loaded = load_config(path, context.args if arguments is None else arguments, os.environ)
    add_folder(path.parent)
    return loaded


def before_start(config: Config, role: Role) -> None:
    """Check what ``role`` needs. Warnings go to standard error. Raises ConfigError with all failures.

    A role that `rft run` has started, which has checked it, is not checked again.
    """
    from infra.launcher.folder import CHECKED_VARIABLE

    if CHECKED_VARIABLE in os.environ:
        return
    from infra.preflight.gate import refuse_faults

    refuse_faults(config, [role], lambda warning: print(f"rft: warning: {warning}", file=sys.stderr))


def parse_time(text: str | None, option: str) -> int | None:
    """Return the Unix time in ms of an ISO time (UTC unless it names an offset) or an age."""
    if text is None:
        return None
    age = _AGE.fullmatch(text)
    if age:
        return int((time.time() - float(age[1]) * _SECONDS[age[2]]) * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: write 2026-05-01T13:30 (UTC) or an age: 90m, 2h, 7d") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
