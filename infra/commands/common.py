"""What sub-commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rft.config import Config

ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML configuration.", show_default=False)]
ArchivePath = Annotated[
    str | None,
    typer.Option("--archive", metavar="PATH", help="Read this archive (folder or URL) instead of the live log."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(path: Path, context: typer.Context) -> Config:
    """The configuration with what follows it on the command line. ConfigError if it is wrong."""
    from rft.config_sources import load_config
    from rft.errors import ConfigError

    if str(path).startswith("-"):
        raise ConfigError(f"CONFIG comes before settings: rft {context.info_name} CONFIG {path} …")
    return load_config(path, context.args, os.environ)
