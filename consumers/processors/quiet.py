"""Keeps aiokafka from burying the log: without a broker it reports each of some forty tries a second as an error."""

from __future__ import annotations

import logging
import time

INTERVAL_S = 5.0


class Sparingly(logging.Filter):
    """Lets a record pass every ``INTERVAL_S``, as a warning: aiokafka tries again by itself, and what it cannot cure
    it raises."""

    def __init__(self) -> None:
        super().__init__()
        self._last = float("-inf")
        self._withheld = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._last < INTERVAL_S:
            self._withheld += 1
            return False
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        if self._withheld:
            record.msg = f"{record.getMessage()} (and {self._withheld} more such lines)"
            record.args = None
        self._last, self._withheld = now, 0
        return True


def log_sparingly(package: str) -> None:
    """Thin out what all loggers of an imported package say."""
    thinned = Sparingly()
    for name in list(logging.root.manager.loggerDict):
        if name == package or name.startswith(f"{package}."):
            logging.getLogger(name).addFilter(thinned)
