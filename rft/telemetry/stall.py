"""Decides whether a role stands still: it has work, and nothing was done for too long (pure)."""

from __future__ import annotations

from rft.telemetry.activity import ActivityState

GAP_S = 10.0
"""If nobody looked for so long, the whole process did not run: it was stopped, or the machine slept."""


class StallClock:
    """Measures for how long a role has stood still."""

    def __init__(self, now: float) -> None:
        self._looked_at = self._excused_until = now

    def observe(self, now: float, state: ActivityState) -> float:
        """Return for how many seconds the role has stood still. Call this every second or so.

        Time in which the broker was away, or in which this process did not run, does not count.
        """
        if state.outage or now - self._looked_at > GAP_S:
            self.excuse(now)
        self._looked_at = now
        return max(0.0, min(state.idle_s, now - self._excused_until))

    def excuse(self, now: float) -> None:
        """Count from now on: what was before had a reason."""
        self._looked_at = self._excused_until = now
