"""Says in a few words what a role waits for, from what it writes into the run's folder (pure)."""

from __future__ import annotations

from rft.telemetry.health import Health

SHOWN_WAIT_S = 2.0
"""A run is full of shorter waits: roles wait for each other all the time."""
SHOWN_WORK_S = 10.0
"""Work without progress is shown after this time: it says where the groups are that others wait for."""
SILENT_S = 10.0
"""A role writes its state every second. One that has not for so long is stopped, or hangs within C code."""


def note(health: Health | None, now: float) -> str:
    """Return what is worth showing of a role; empty if it just works. ``now`` is the Unix time.

    The seconds come first: a narrow screen cuts the end.
    """
    if health is None:
        return ""
    silent_s = now - health.time
    if silent_s >= SILENT_S:
        return f"has not reported for {silent_s:.0f} s; its last line: {_printable(health.activity)}"
    if health.waits_for is not None and (health.waits_s or 0.0) >= SHOWN_WAIT_S:
        return f"has waited {health.waits_s:.0f} s for {_printable(health.waits_for)}"
    if health.state in ("working", "stalled") and (health.progress_age_s or 0.0) >= SHOWN_WORK_S:
        return f"no progress for {health.progress_age_s:.0f} s: {_printable(health.activity)}"
    return ""


def _printable(text: str) -> str:
    """Return one line without control characters: ids come from anyone who may write to the topics."""
    return "".join(char if char.isprintable() else " " for char in text)
