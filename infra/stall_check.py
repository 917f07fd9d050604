"""Ends a role that stands still: it has work, and made no progress for ``launcher.stall_s``.

The check runs inside the role, so it also works where no launcher supervises it, and on a thread of its own, so it does
not depend on the role's loop. A function of C code that never gives Python's lock back, such as a regular expression
with catastrophic backtracking, stops this thread too. For that, faulthandler has a timer of its own: it writes the
stacks and ends the process if this thread has not set it again for even longer.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from infra.exit_report import place_in
from rft.config import Config
from rft.errors import StallError
from rft.event_loop import print_tasks
from rft.log.cluster_state import cluster_fault
from rft.telemetry.activity import Activity, ActivityState
from rft.telemetry.stall import StallClock

LOOK_EVERY_S = 1.0
SET_TIMER_EVERY_S = 10.0
TIMER_GRACE_S = 30.0
"""faulthandler's timer runs for so much longer than ``launcher.stall_s``: this thread's report is the better one."""

EndStalled = Callable[[StallError, str, float], None]
"""Ends the process. Takes the error, the place where the main thread stands, and for how long it has."""

logger = logging.getLogger("rft")


class StallCheck:
    """A thread that watches the role's activity. Use it as a context around the role's work."""

    def __init__(self, config: Config, role: str, activity: Activity, end: EndStalled) -> None:
        self._config = config
        self._limit_s = config.launcher.stall_s
        self._role = role
        self._activity = activity
        self._end = end
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-check", daemon=True)
        self._timer_set_at = 0.0
        self.stalled = False
        """Whether the role is being ended because it stands still."""

    def __enter__(self) -> Self:
        if self._limit_s:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._limit_s:
            self._thread.join(2 * LOOK_EVERY_S)
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        clock = StallClock(time.monotonic())
        while not self._closed.wait(LOOK_EVERY_S):
            if time.monotonic() - self._timer_set_at >= min(SET_TIMER_EVERY_S, self._limit_s):
                self._set_timer()
            if self._activity.fatal is not None:
                self._end_role(self._activity.state(), StallError(self._activity.fatal))
                return
            if clock.observe(time.monotonic(), self._activity.state()) < self._limit_s:
                continue
            self._set_timer()  # the broker may take its time to answer
            if (fault := cluster_fault(self._config)) is not None:
                logger.warning("no progress since %.0f s. The cluster is the cause: %s", self._limit_s, fault)
                clock.excuse(time.monotonic())
                continue
            state = self._activity.state()
            # The broker has taken its time to answer. What moved meanwhile does not stand still.
            if clock.observe(time.monotonic(), state) >= self._limit_s and not self._closed.is_set():
                self._end_role(state, make_error(self._role, state))
                return

    def _set_timer(self) -> None:
        self._timer_set_at = time.monotonic()
        faulthandler.dump_traceback_later(self._limit_s + TIMER_GRACE_S, exit=True)

    def _end_role(self, state: ActivityState, error: StallError) -> None:
        self.stalled = True
        print(f"{self._role} stands still. The stacks of its threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        print_tasks(sys.stderr)
        self._end(error, _main_thread_place(), state.idle_s)


def make_error(role: str, state: ActivityState) -> StallError:
    """Return the error for a role that stands still beside work."""
    return StallError(
        f"no progress since {state.idle_s:.0f} s (launcher.stall_s), although there is work and the broker answers: "
        f"{role} {state}. The stacks of its threads are above in this log. The role ends, and its next start does "
        "again what was not finished. If this step really takes so long, raise launcher.stall_s"
    )


def _main_thread_place() -> str:
    frames = sys._current_frames()  # noqa: SLF001  # the only way to name what another thread does
    ident = threading.main_thread().ident
    frame = None if ident is None else frames.get(ident)
    return "" if frame is None else place_in(frame, frame.f_lineno)
