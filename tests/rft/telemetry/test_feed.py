"""A tracker may raise, hang or be away: nobody waits for it, what there is room for is kept, and it is said once."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from rft.telemetry.base import Point
from rft.telemetry.feed import Feed

POINTS = [Point(step, {"train/loss": float(step)}, step) for step in range(20)]


class Server:
    """What several connections write to; fails as it is told."""

    def __init__(self, failures: int = 0, refusals: int = 0) -> None:
        self.seen: list[int] = []
        self.reopened: list[bool] = []
        self.closed = 0
        self.failures, self.refusals = failures, refusals

    def connect(self, again: bool) -> Server:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("nobody there")
        self.reopened.append(again)
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
        feed = Feed("odd", server.connect, 100, retry_s=0.01)
        for point in POINTS:
            feed.put(point)
        deadline = time.monotonic() + 60
        while feed.sent < len(POINTS) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert feed.close(5)
    assert server.seen == list(range(20))
    assert server.reopened == [False, True, True, True]
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2, "once for the refusals, once for the failures"
    assert "ConnectionError: nobody there" in told[0]
    assert "TimeoutError: too slow" in told[1]


def test_a_tracker_that_hangs_delays_neither_the_points_nor_the_end(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Hanging(Server):
        def log(self, point: Point) -> None:
            release.wait(60)

    feed = Feed("stuck", Hanging().connect, 8, retry_s=0.01)
    began = time.monotonic()
    for point in POINTS:
        feed.put(point)
    assert not feed.close(0.2)
    assert time.monotonic() - began < 5
    assert feed.left_out == len(POINTS) - 8
    assert sum("does not keep up" in record.message for record in caplog.records) == 1
    assert "8 points wait, 12 were left out" in caplog.text
    release.set()


def test_one_that_is_never_there_is_given_up_at_the_end() -> None:
    server = Server(refusals=10**6)
    feed = Feed("away", server.connect, 100, retry_s=0.01)
    feed.put(POINTS[0])
    began = time.monotonic()
    assert not feed.close(5)
    assert time.monotonic() - began < 5
    assert server.seen == []
