"""Reports the waits of a role that reads the log: it waits only if there is nothing to read."""

from __future__ import annotations

import time
from collections.abc import Callable

from rft.telemetry.activity import Activity

LOOK_EVERY_S = 60.0
"""How long nothing may come before the log is asked whether there is something. One question a minute costs nothing."""


class LagLook:
    """Compares what a client brings with what is on the log: it may bring nothing and raise no error."""

    def __init__(self, at_end: Callable[[], bool]) -> None:
        """``at_end`` asks the log whether everything on it was read, on the caller's thread."""
        self._at_end = at_end
        self._looked_at = time.monotonic()
        self.lags = False
        """Whether, when last looked, events were on the log that do not come. Thread-safe."""

    def came(self) -> None:
        """Note that events came, or that none can."""
        self._looked_at, self.lags = time.monotonic(), False

    def nothing_came(self) -> None:
        """Look at the log, at most once a minute."""
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self.lags = not self._at_end()
            self._looked_at = time.monotonic()


class InputWait:
    """Reports progress when events come, and a wait when none are there.

    A role that has lag does not wait: it works, without progress.
    """

    def __init__(self, activity: Activity, at_end: Callable[[], bool]) -> None:
        """``at_end`` is as for :class:`LagLook`."""
        self._activity = activity
        self._look = LagLook(at_end)

    def came(self) -> None:
        """Note that events came."""
        self._look.came()
        self._activity.progressed()

    def nothing_came(self, waits_for: str, *values: object) -> None:
        """Report that the role waits, unless there are events that do not come."""
        self._look.nothing_came()
        if self._look.lags:
            self._activity.works("reads events that are on the log and do not come")
        else:
            self._activity.waits(waits_for, *values)
