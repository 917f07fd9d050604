"""What sub-commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rft.config import Config

ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}
WholeConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML configuration.", show_default=False)]
ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="TOML configuration. Of one in stages the last that was begun is meant, or that of `--stage NAME`.",
        show_default=False,
    ),
]
ArchivePath = Annotated[
    str | None,
    typer.Option("--archive", metavar="PATH", help="Read this archive (folder or URL) instead of the live log."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(path: Path, context: typer.Context) -> Config:
    """The configuration with what follows it on the command line; of one in stages that of one stage.

    Raises ConfigError if it is wrong.
    """
    from rft.errors import ConfigError

    words, name = list(context.args), None
    if "--stage" in words:
        place = words.index("--stage")
        if place + 1 == len(words):
            raise ConfigError("--stage has no value: write --stage NAME")
        name = words[place + 1]
        del words[place : place + 2]
    loaded = load_whole(path, context, words)
    if loaded.stages:
        from infra.launcher.staging import one_stage

        return one_stage(loaded, name)
    if name is not None:
        raise ConfigError(f"--stage {name}: {path} has no [[stages]]")
    return loaded


def load_whole(path: Path, context: typer.Context, words: Sequence[str] | None = None) -> Config:
    """The same with all of its stages. Raises ConfigError if it is wrong."""
    from rft.config_sources import load_config
    from rft.errors import ConfigError

    if str(path).startswith("-"):
        raise ConfigError(f"CONFIG comes before settings: rft {context.info_name} CONFIG {path} …")
    return load_config(path, context.args if words is None else words, os.environ)
