"""Checks where the run is written."""

from __future__ import annotations

import os
from collections.abc import Iterator

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.errors import ConfigError


def run_folder(facts: Facts) -> Iterator[Finding]:
    """Find a run folder that is a file, lies beneath one, or cannot be written."""
    path = facts.config.run.path
    for part in (path, *path.parents):
        if part.is_dir():
            if not os.access(part, os.W_OK | os.X_OK):
                raise ConfigError(f"run.folder: {part} cannot be written; set it to a folder that you may write")
            break
        if part.exists() or part.is_symlink():
            raise ConfigError(
                f"run.folder: {part} is {'a file' if part.is_file() else 'not a folder'}, so the run cannot be written "
                f"to {path}; set run.folder or run.name to another, or remove it"
            )
    yield Finding("ok", f"the run's folder {path} can be written")
