"""One JSON object a line: first the run, then each point."""

from __future__ import annotations

import json

from rft.telemetry.base import Point, RunFacts

FILE = "metrics.jsonl"


class JsonlTracker:
    """Writes ``metrics.jsonl`` anew, for the points come again from the first one; goes on with it if ``again``."""

    def __init__(self, run: RunFacts, again: bool = False) -> None:
        self._file = (run.folder / FILE).open("a" if again else "w", encoding="utf-8", buffering=1)
        if not again:
            self._file.write(json.dumps({"run": run.name, "config": run.config}) + "\n")

    def log(self, point: Point) -> None:
        self._file.write(json.dumps({"step": point.step, "at_ms": point.at_ms, **point.values}) + "\n")

    def close(self) -> None:
        self._file.close()
