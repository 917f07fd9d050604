"""Feeds one tracker from its own thread: it may hang, raise or be unreachable, and the run does not wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from rft.plugins import USER_FAILURES
from rft.telemetry.base import Point, Tracker

logger = logging.getLogger(__name__)

RETRY_S = 1.0
"""Seconds before a failed tracker is opened again; doubles with each failure."""
MAX_RETRY_S = 60.0


class TrackerThread:
    """A bounded queue in front of a tracker, which is opened again each time it fails."""

    def __init__(
        self, name: str, open_tracker: Callable[[bool], Tracker], capacity: int, *, retry_s: float = RETRY_S
    ) -> None:
        """Start the thread.

        Args:
            name: of the tracker, for log lines.
            open_tracker: opens the tracker; its argument is True if this thread has sent points to it before.
            capacity: most points that wait; further ones are dropped.
            retry_s: seconds before the first retry.
        """
        self.name = name
        self.dropped = 0
        """Points that found the queue full."""
        self.sent = 0
        self._open = open_tracker
        self._capacity = capacity
        self._retry_s = retry_s
        self._waiting: deque[Point] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._abandoned = threading.Event()
        self._down = False
        # A daemon, so that a tracker that hangs cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, point: Point) -> None:
        """Queue a point, or drop it if the queue is full. Never waits."""
        with self._changed:
            if len(self._waiting) < self._capacity:
                self._waiting.append(point)
                self._changed.notify()
                return
            self.dropped += 1
        if self.dropped == 1:
            logger.warning(
                "tracker %s does not keep up: %d points wait, further ones are dropped. Send all with `rft track`",
                self.name,
                self._capacity,
            )

    def close(self, timeout_s: float) -> bool:
        """Send what waits, for at most ``timeout_s``. Return whether everything was sent and written."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout_s)
        self._abandoned.set()
        complete = not self._thread.is_alive() and not self.dropped and not self._waiting
        if not complete:
            logger.warning(
                "tracker %s is incomplete: %d points wait, %d were dropped. Send all with `rft track`",
                self.name,
                len(self._waiting),
                self.dropped,
            )
        return complete

    def _run(self) -> None:
        wait_s = self._retry_s
        while True:
            tracker: Tracker | None = None
            try:
                tracker = self._open(self.sent > 0)
                self._send(tracker)
                tracker.close()
                return
            # A tracker is foreign code in front of a foreign server: no error of it may stop the run.
            except USER_FAILURES as error:
                self._warn_once(error)
                _close_failed(tracker)
            with self._changed:
                if self._ending:
                    return
                self._changed.wait_for(lambda: self._ending, timeout=wait_s)
            wait_s = min(MAX_RETRY_S, wait_s * 2)

    def _send(self, tracker: Tracker) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                point = self._waiting[0]
            tracker.log(point)
            with self._changed:
                self._waiting.popleft()
                self.sent += 1
            if self._down:
                self._down = False
                logger.info("tracker %s is back", self.name)
            if self._abandoned.is_set():
                return

    def _warn_once(self, error: BaseException) -> None:
        """Log the first error of an outage."""
        if not self._down:
            self._down = True
            logger.warning(
                "tracker %s failed and will be opened again; the run goes on: %s: %s",
                self.name,
                type(error).__name__,
                " ".join(str(error).split())[:300],
            )


def _close_failed(tracker: Tracker | None) -> None:
    if tracker is None:
        return
    try:
        tracker.close()
    except USER_FAILURES as error:
        logger.debug("closing a failed tracker: %s", error)


def close_all(threads: list[TrackerThread], timeout_s: float) -> bool:
    """Close all within ``timeout_s`` in total. Return whether every tracker got every point."""
    deadline = time.monotonic() + timeout_s
    complete = [thread.close(max(0.1, deadline - time.monotonic())) for thread in threads]
    return all(complete)
