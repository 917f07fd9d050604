"""Copies a template's files into a new project's folder."""

from __future__ import annotations

import shutil
from difflib import get_close_matches
from pathlib import Path

from rft.errors import ConfigError

_TEMPLATES = Path(__file__).with_name("templates")
TEMPLATES = {
    "math": "answers that a function can check: sums, rewarded if the number is right",
    "chat": "conversations in the model's chat template, with a reward of two parts",
    "agent": "an agent of your own that reaches the model over HTTP",
    "sft-then-grpo": "imitates demonstrations, then learns from rewards",
    "dpo": "learns from pairs of a better and a worse answer",
}
"""What each template shows, by name."""


def write_project(folder: Path, template: str) -> list[Path]:
    """Write the template's files to ``folder`` and return them.

    Raises ConfigError if there is no such template, or if a file would be overwritten; then nothing is written.
    """
    if template not in TEMPLATES:
        close = get_close_matches(template, TEMPLATES, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        listed = "".join(f"\n  {name:<14} {text}" for name, text in TEMPLATES.items())
        raise ConfigError(f"there is no template '{template}'{meant} The templates are:{listed}")
    sources = sorted(path for path in (_TEMPLATES / template).iterdir() if path.is_file())
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file. Name a folder that does not exist yet.")
    existing = [source.name for source in sources if (folder / source.name).exists()]
    if existing:
        raise ConfigError(f"{folder} has {', '.join(existing)} already. Nothing was written: name another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copyfile(source, folder / source.name)) for source in sources]
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}. Name another folder.") from error
