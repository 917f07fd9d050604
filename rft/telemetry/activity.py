"""Knows what the role of this process does now, what it waits for, and when it last made progress.

A process runs one role, so there is one :class:`Activity`: :func:`role_activity` returns it. The role's own loops
report to it: a report is an assignment or two, so it may come with each event. Others read it: the stall check, the
log, the health endpoints and the live view.

The three reports differ in what they say about a stall. ``progressed`` says that something was done. ``waits`` says
that nothing can be done now, and why; the role's loop repeats it, so it also says that the loop runs. ``works`` says
that there is work. So a role stands still when neither ``progressed`` nor ``waits`` has come for a long time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rft.log.outages import LOG_AFTER_S, Wait, longest_wait

Kind = Literal["starting", "working", "waiting"]

SHOWN_GROUPS = 4
"""Groups that a line names before it only counts the others."""


@dataclass(frozen=True, slots=True)
class ActivityState:
    """A role's activity at one moment."""

    kind: Kind
    text: str
    """What it works on, or waits for; empty if it has not said."""
    since_s: float
    """How long it has done so, or waited."""
    progress: int
    """How often something was done since the start."""
    progress_age_s: float | None
    """Seconds since something was done; None if nothing was yet."""
    idle_s: float
    """Seconds since something was done, or since the role last said that it has to wait."""
    outage: bool = False
    """Whether it waits for the broker."""

    def __str__(self) -> str:
        """Return one line, such as ``waits for tasks since 40 s``."""
        if self.outage:
            return str(Wait(self.text, self.since_s))
        if self.kind == "waiting":
            return f"waits for {self.text} since {self.since_s:.0f} s"
        return f"{self.text or ('starts' if self.kind == 'starting' else 'works')}, for {self.since_s:.0f} s"


class _Report(NamedTuple):
    kind: Kind
    text: str
    values: tuple[object, ...]
    since: float


class Activity:
    """The activity of one role. Thread-safe: a report is one assignment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin as a role that starts. ``clock`` returns seconds that never run backwards."""
        self._clock = clock
        self._report = _Report("starting", "", (), clock())
        self._waited_at = self._report.since
        self._progressed_at: float | None = None
        self._progress = 0
        self.fatal: str | None = None
        """Why the role must end although its own loop cannot say so; None if it need not."""

    def works(self, on: str, *values: object) -> None:
        """Note that there is work, such as ``takes step %d``. Repeating it does not count as progress.

        A role that has not reported anything else yet still starts. ``values`` are formatted only when someone reads
        the text.
        """
        self._set("starting" if self._report.kind == "starting" else "working", on, values)

    def waits(self, on: str, *values: object) -> None:
        """Note that nothing can be done now, and what this waits for, such as ``tasks``. The loop repeats it."""
        self._waited_at = self._clock()
        self._set("waiting", on, values)

    def progressed(self) -> None:
        """Note that something was done. A wait that is reported afterwards is a new one."""
        now = self._clock()
        self._progress += 1
        self._progressed_at = now
        report = self._report
        if report.kind == "working":
            self._report = report._replace(since=now)
        else:
            self._report = _Report("working", "", (), now)

    def state(self) -> ActivityState:
        """Return the activity now. A wait for the broker explains all others."""
        now, report = self._clock(), self._report
        progressed_at = self._progressed_at
        idle_s = now - max(self._waited_at, progressed_at or 0.0)
        age = None if progressed_at is None else now - progressed_at
        outage = longest_wait()
        if outage is not None and outage.seconds >= LOG_AFTER_S:
            return ActivityState("waiting", outage.failure, outage.seconds, self._progress, age, idle_s, outage=True)
        text = report.text % report.values if report.values else report.text
        return ActivityState(report.kind, text, now - report.since, self._progress, age, idle_s)

    def _set(self, kind: Kind, text: str, values: tuple[object, ...]) -> None:
        before = self._report
        if before.kind != kind or before.text != text or before.values != values:
            self._report = _Report(kind, text, values, self._clock())


class ThreadPulse:
    """Tells whether a thread's loop still runs: the loop calls ``beat``, and others look at ``age_s``."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """Note that the loop runs."""
        self._at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._at


_lock = threading.Lock()
_activity: Activity | None = None


def role_activity() -> Activity:
    """Return the activity of this process's role."""
    global _activity
    with _lock:
        if _activity is None:
            _activity = Activity()
        return _activity


def name_groups(names: list[str], total: int | None = None) -> str:
    """Return ``groups 812, 813 and 6 more``. ``total`` counts groups beside those in ``names``, too."""
    count = len(names) if total is None else total
    shown = ", ".join(names[:SHOWN_GROUPS])
    more = count - len(names[:SHOWN_GROUPS])
    return f"group{'' if count == 1 else 's'} {shown}" + (f" and {more} more" if more > 0 else "")
