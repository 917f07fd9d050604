"""Feeds one tracker from a thread of its own: it may hang, raise or be away, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from rft.telemetry.base import Point, Tracker

logger = logging.getLogger(__name__)

RETRY_S = 1.0
LONGEST_RETRY_S = 60.0


class Feed:
    """A bounded queue before a tracker that is opened again whenever it fails."""

    def __init__(
        self, name: str, open_tracker: Callable[[bool], Tracker], capacity: int, *, retry_s: float = RETRY_S
    ) -> None:
        """``open_tracker`` is told whether this tracker has taken points before."""
        self.name = name
        self.left_out = 0
        """Points that found no room."""
        self.sent = 0
        self._open = open_tracker
        self._capacity = capacity
        self._retry_s = retry_s
        self._waiting: deque[Point] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._abandoned = threading.Event()
        self._down = False
        # A daemon: a tracker that hangs must not keep the process.
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, point: Point) -> None:
        """Hand over a point; returns at once."""
        with self._changed:
            if len(self._waiting) < self._capacity:
                self._waiting.append(point)
                self._changed.notify()
                return
            self.left_out += 1
        if self.left_out == 1:
            logger.warning(
                "tracker %s does not keep up: %d points wait, further ones are left out. `rft track` sends all again",
                self.name,
                self._capacity,
            )

    def close(self, timeout_s: float) -> bool:
        """Send what waits, for at most ``timeout_s``; whether everything was sent and written."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout_s)
        self._abandoned.set()
        whole = not self._thread.is_alive() and not self.left_out and not self._waiting
        if not whole:
            logger.warning(
                "tracker %s has not got all: %d points wait, %d were left out. `rft track` sends all again",
                self.name,
                len(self._waiting),
                self.left_out,
            )
        return whole

    def _run(self) -> None:
        wait_s = self._retry_s
        while True:
            tracker: Tracker | None = None
            try:
                tracker = self._open(self.sent > 0)
                self._send(tracker)
                tracker.close()
                return
            # A tracker is someone else's code in front of someone else's server: whatever it raises is its own affair.
            except Exception as error:
                self._tell(error)
                _discard(tracker)
            with self._changed:
                if self._ending:
                    return
                self._changed.wait_for(lambda: self._ending, timeout=wait_s)
            wait_s = min(LONGEST_RETRY_S, wait_s * 2)

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

    def _tell(self, error: Exception) -> None:
        """Once for each time that it goes away."""
        if not self._down:
            self._down = True
            logger.warning(
                "tracker %s failed and is tried again; the run goes on: %s: %s",
                self.name,
                type(error).__name__,
                " ".join(str(error).split())[:300],
            )


def _discard(tracker: Tracker | None) -> None:
    if tracker is None:
        return
    try:
        tracker.close()
    except Exception as error:
        logger.debug("closing a failed tracker: %s", error)


def close_all(feeds: list[Feed], timeout_s: float) -> bool:
    """Close all within ``timeout_s`` together; whether every one got everything."""
    deadline = time.monotonic() + timeout_s
    whole = [feed.close(max(0.1, deadline - time.monotonic())) for feed in feeds]
    return all(whole)
