"""Runs the tracker: as a process that follows the log, and as a command over a log that has ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from consumers.tracker.point_reducer import ENTITIES, PointReducer
from rft.config import Config
from rft.log.reader import EventReader
from rft.log.views import LogView
from rft.telemetry.activity import role_activity
from rft.telemetry.input_wait import InputWait
from rft.telemetry.opening import check_trackers, start_trackers
from rft.telemetry.tracker_thread import TrackerThread, close_all

logger = logging.getLogger("rft")

POLL_S = 1.0
CATCH_UP_S = 5.0
"""Seconds that a stopped tracker keeps reading, to reach the end that the log had when it was stopped."""


@dataclass(frozen=True, slots=True)
class TrackResult:
    """The outcome of ``track``."""

    points: int
    unreadable: int
    """Events that could not be decoded; they give no points."""
    incomplete: tuple[str, ...]
    """Names of the trackers that did not get every point."""


def run(config: Config, stop: threading.Event) -> None:
    """Feed the trackers from the log's beginning until ``stop`` is set, then to the end that the log has by then.

    Raises ConfigError if a tracker's library is missing, BrokerError if the log cannot be read.
    """
    check_trackers(config)
    reducer, threads = PointReducer(config), start_trackers(config)
    try:
        with EventReader(config, "tracker", ENTITIES) as reader:
            waits = InputWait(role_activity(), reader.at_end)
            while not stop.wait(POLL_S):
                if _read(reader, reducer, threads):
                    waits.came()
                else:
                    waits.nothing_came("steps and evaluations")
            ends, deadline = reader.end_offsets(), time.monotonic() + CATCH_UP_S
            while not reader.caught_up(ends) and time.monotonic() < deadline:
                _read(reader, reducer, threads)
    finally:
        close_all(threads, config.trackers.close_s)


def track(
    config: Config, view: LogView, timeout_s: float, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrackResult:
    """Feed the trackers from all of ``view``, waiting at most ``timeout_s`` for them at the end.

    Raises ConfigError if a tracker's library is missing; MissingRangeError, ArchiveError or BrokerError if the log
    cannot be read.
    """
    check_trackers(config)
    reducer = PointReducer(config)
    points = []
    ends, begins = ([bound(entity) for entity in ENTITIES] for bound in (view.end_offsets, view.begin_offsets))
    total = sum(sum(offsets.values()) for offsets in ends) - sum(sum(offsets.values()) for offsets in begins)
    done = 0
    for entity in ENTITIES:
        for event in view.read(entity):
            points += reducer.add(event)
            done += 1
            progress(done, total)
    settings = config.trackers.model_copy(update={"queue": max(1, len(points), config.trackers.queue)})
    threads = start_trackers(config.model_copy(update={"trackers": settings}))
    for point in points:
        for thread in threads:
            thread.put(point)
    deadline = time.monotonic() + timeout_s
    incomplete = [thread.name for thread in threads if not thread.close(max(0.1, deadline - time.monotonic()))]
    return TrackResult(len(points), reducer.unreadable, tuple(incomplete))


def _read(reader: EventReader, reducer: PointReducer, threads: list[TrackerThread]) -> bool:
    """Feed the trackers with what is there. Return whether anything was."""
    found = False
    while events := reader.poll(0.05, max_events=2000):
        found = True
        for event in events:
            for point in reducer.add(event):
                for thread in threads:
                    thread.put(point)
    return found
