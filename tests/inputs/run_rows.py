"""Gives rows to the checks, one after the other in one process, as `rft run` gives them its configuration.

Writes one JSON line a row: what was found, how long it took, and whether torch was loaded.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.preflight.checks import find_all
from infra.preflight.gate import roles_of_run
from rft.config_sources import load_config
from rft.config_toml import to_toml
from rft.errors import ConfigError
from rft.plugins import FOLDERS_VARIABLE, add_folder
from tests.inputs.all_rows import ROWS
from tests.inputs.rows import GOOD, TASKS, Row, jsonl


def merged(below: Any, above: Any) -> Any:
    """Return ``above`` merged into ``below``."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{name: merged(below.get(name), value) for name, value in above.items()}}


def write(row: Row, folder: Path, model: Path) -> Path:
    """Write what the row's user has into ``folder``. Return the path of the configuration."""
    shutil.copytree(model, folder / "model")
    (folder / "tasks.jsonl").write_text(jsonl(*TASKS))
    where = folder / "configurations" if row.elsewhere else folder
    where.mkdir(exist_ok=True)
    config = where / "run.toml"
    settings = merged(GOOD, row.settings)
    if row.elsewhere:
        settings = merged(GOOD, {name: row.settings[name] for name in row.settings if name not in ("policy", "tasks")})
    config.write_text(to_toml(settings) if row.text is None else row.text, "utf-8")
    for name, content in row.files.items():
        file = where / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return config


def find(row: Row, config: Path) -> list[tuple[str, str]]:
    """Return level and text of all findings."""
    try:
        loaded = load_config(config, row.arguments, dict(row.environ))
    except ConfigError as error:
        return [("fail", line) for line in str(error).splitlines()]
    add_folder(config.parent)
    return [(finding.level, finding.text) for finding in find_all(loaded, roles_of_run(loaded))]


@contextmanager
def clean(folder: Path, environ: dict[str, str]) -> Iterator[None]:
    """Run what follows in ``folder``, and forget its modules."""
    before = set(sys.modules)
    path = list(sys.path)
    os.chdir(folder)
    os.environ |= environ
    try:
        yield
    finally:
        for name in (FOLDERS_VARIABLE, *environ):
            os.environ.pop(name, None)
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
        sys.path_importer_cache.clear()


def main() -> None:
    folder, model = Path(sys.argv[1]), Path(sys.argv[2])
    for number, row in enumerate(ROWS):
        own = folder / str(number)
        own.mkdir()
        config = write(row, own, model)
        started = time.monotonic()
        with clean(own, dict(row.environ)):
            found = find(row, config)
        seconds = time.monotonic() - started
        print(json.dumps([row.name, found, round(seconds, 4), "torch" in sys.modules]), flush=True)


if __name__ == "__main__":
    main()
