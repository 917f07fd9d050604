"""Keeps Kafka's clients from burying the log: without a broker they report each of some forty tries a second, as errors
and with a traceback each.
"""

from __future__ import annotations

import logging
import time

INTERVAL_S = 5.0


class RateLimitFilter(logging.Filter):
    """Lets each kind of line of some packages pass every ``INTERVAL_S``, as a warning without traceback: the clients
    try again by themselves, and what that cannot cure they raise.
    """

    def __init__(self, *packages: str) -> None:
        super().__init__()
        self._packages = packages
        self._passed: dict[str, float] = {}
        self._withheld: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in self._packages:
            return True
        now, kind = time.monotonic(), f"{record.name}: {record.msg}"
        if now - self._passed.get(kind, float("-inf")) < INTERVAL_S:
            self._withheld[kind] = self._withheld.get(kind, 0) + 1
            return False
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = None
        if withheld := self._withheld.pop(kind, 0):
            record.msg = f"{record.getMessage()} (and {withheld} more such lines)"
            record.args = None
        self._passed[kind] = now
        return True
