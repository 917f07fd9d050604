"""A tracker that writes one JSON object a line: first the run, then each point."""

from __future__ import annotations

import json

from rft.telemetry.base import Point, RunInfo

FILE = "metrics.jsonl"


class JsonlTracker:
    """Overwrites ``metrics.jsonl``, since points come again from the first one; appends to it if ``reopened``."""

    def __init__(self, run: RunInfo, reopened: bool = False) -> None:
        self._file = (run.folder / FILE).open("a" if reopened else "w", encoding="utf-8", buffering=1)
        if not reopened:
            self._file.write(json.dumps({"run": run.name, "config": run.config}) + "\n")

    def log(self, point: Point) -> None:
        self._file.write(json.dumps({"step": point.step, "at_ms": point.at_ms, **point.values}) + "\n")

    def close(self) -> None:
        self._file.close()
