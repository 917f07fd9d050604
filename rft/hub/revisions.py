"""Keeps the commit that each hub name stood for when a run began, so that a resumed run uses the same files.

``<run>/hub_revisions.json`` maps :attr:`rft.hub.repository.Repository.key` to a commit. Checkpoints hold a copy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

FILE = "hub_revisions.json"
STAGES = "stages"
"""The folder, within a run's folder, of its stages' folders."""


def recorded_revisions(run_path: Path, *, resumed: bool = True) -> dict[str, str]:
    """Return the commits by key that a run has noted: in its folder, or if the file is gone, in its newest checkpoint.

    A stage begins with those of the stages before, which the folder of the whole run holds. ``resumed`` says whether
    those of the run itself count.
    """
    found = _texts(_read(run_path.parent.parent / FILE)) if run_path.parent.name == STAGES else {}
    if not resumed:
        return found
    if (run_path / FILE).exists():
        return found | _texts(_read(run_path / FILE))
    states = sorted(run_path.glob("checkpoints/*/step-*/trainer/state.json"), key=lambda path: path.parts[-3])
    return found | _texts(_read(states[-1]).get("hub_revisions") if states else None)


def record_revisions(run_path: Path, revisions: Mapping[str, str]) -> None:
    """Note commits by key in the run's folder, and in that of its stages. Raises OSError."""
    if not revisions:
        return
    folders = [run_path.parent.parent, run_path] if run_path.parent.name == STAGES else [run_path]
    for folder in folders:
        target = folder / FILE
        content = _texts(_read(target)) | dict(revisions)
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{FILE}.{os.getpid()}")
        partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        os.replace(partial, target)


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _texts(content: object) -> dict[str, str]:
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, str)}
