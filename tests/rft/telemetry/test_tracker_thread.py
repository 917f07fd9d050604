"""A tracker may raise, hang or be unreachable: the run does not wait, points are queued, and one warning is logged."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from rft.telemetry.base import Point
from rft.telemetry.tracker_thread import TrackerThread

POINTS = [Point(step, {"train/loss": float(step)}, step) for step in range(20)]


class Server:
    """The server behind several connections; fails as often as the test wants."""

    def __init__(self, failures: int = 0, refusals: int = 0) -> None:
        self.seen: list[int] = []
        self.reopened: list[bool] = []
        self.closed = 0
        self.failures, self.refusals = failures, refusals

    def connect(self, reopened: bool) -> Server:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("no one there")
        self.reopened.append(reopened)
        return self

    def log(self, point: Point) -> None:
        if self.failures and point.step == 5:
            self.failures -= 1
            raise TimeoutError("too slow")
        self.seen.append(point.step)

    def close(self) -> None:
        self.closed += 1


def test_a_tracker_that_refuses_and_raises_gets_every_point_in_order_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(failures=3, refusals=2)
    with caplog.at_level(logging.INFO):
        thread = TrackerThread("odd", server.connect, 100, retry_s=0.01)
        for point in POINTS:
            thread.put(point)
        deadline = time.monotonic() + 60
        while thread.sent < len(POINTS) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert thread.close(5)
    assert server.seen == list(range(20))
    assert server.reopened == [False, True, True, True]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2, "once for the refusals, once for the failures"
    assert "ConnectionError: no one there" in warnings[0]
    assert "TimeoutError: too slow" in warnings[1]


def test_a_tracker_that_hangs_delays_neither_the_points_nor_the_end(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Hanging(Server):
        def log(self, point: Point) -> None:
            release.wait(60)

    thread = TrackerThread("stuck", Hanging().connect, 8, retry_s=0.01)
    began = time.monotonic()
    for point in POINTS:
        thread.put(point)
    assert not thread.close(0.2)
    assert time.monotonic() - began < 5
    assert thread.dropped == len(POINTS) - 8
    assert sum("does not keep up" in record.message for record in caplog.records) == 1
    assert "8 points wait, 12 were dropped" in caplog.text
    release.set()


def test_a_tracker_that_is_never_reachable_is_given_up_at_the_end() -> None:
    server = Server(refusals=10**6)
    thread = TrackerThread("away", server.connect, 100, retry_s=0.01)
    thread.put(POINTS[0])
    began = time.monotonic()
    assert not thread.close(5)
    assert time.monotonic() - began < 5
    assert server.seen == []
