"""Limits how often Kafka's clients log the same line.

Without a broker they log about forty tries a second, each as an error with a traceback.
"""

from __future__ import annotations

import logging
import time

INTERVAL_S = 5.0


class RateLimitFilter(logging.Filter):
    """Passes each kind of line of some packages at most every ``INTERVAL_S``, as a warning without traceback.

    The clients retry by themselves, and raise what a retry cannot solve.
    """

    def __init__(self, *packages: str) -> None:
        super().__init__()
        self._packages = packages
        self._passed_at: dict[str, float] = {}
        self._withheld: dict[str, int] = {}
        """Number of lines withheld since the last one that passed, by kind."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        if record.name.partition(".")[0] not in self._packages:
            return True
        now, kind = time.monotonic(), f"{record.name}: {record.msg}"
        if now - self._passed_at.get(kind, float("-inf")) < INTERVAL_S:
            self._withheld[kind] = self._withheld.get(kind, 0) + 1
            return False
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = None
        if withheld := self._withheld.pop(kind, 0):
            record.msg = f"{record.getMessage()} (and {withheld} more such lines)"
            record.args = None
        self._passed_at[kind] = now
        return True
