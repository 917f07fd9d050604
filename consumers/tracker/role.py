"""The tracker as a process that follows the log, and as a command over a log that ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from consumers.tracker.points import ENTITIES, PointMaker
from rft.config import Config
from rft.log.events import EventReader
from rft.log.views import LogView
from rft.telemetry.feed import Feed, close_all
from rft.telemetry.opening import check_trackers, open_feeds

logger = logging.getLogger("rft")

PAUSE_S = 1.0
CATCH_UP_S = 5.0
"""How long a stopped tracker reads on to reach what was the log's end when it was stopped."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """What was sent."""

    points: int
    unreadable: int
    """Events that could not be decoded, and tell nothing."""
    unsent: tuple[str, ...]
    """Trackers that did not get all of them."""


def run(config: Config, stop: threading.Event) -> None:
    """Feed the trackers from the log's beginning until ``stop`` is set, then to its end as it is at that moment.

    Raises ConfigError when a tracker's library is missing, BrokerError when the log cannot be read.
    """
    check_trackers(config)
    maker, feeds = PointMaker(config), open_feeds(config)
    try:
        with EventReader(config, "tracker", ENTITIES) as reader:
            while not stop.wait(PAUSE_S):
                _read(reader, maker, feeds)
            ends, deadline = reader.end_offsets(), time.monotonic() + CATCH_UP_S
            while not reader.caught_up(ends) and time.monotonic() < deadline:
                _read(reader, maker, feeds)
    finally:
        close_all(feeds, config.trackers.close_s)


def track(
    config: Config, view: LogView, timeout_s: float, progress: Callable[[int, int], None] = lambda done, total: None
) -> Tracked:
    """Feed the trackers all that ``view`` holds, waiting at most ``timeout_s`` for them at the end.

    Raises ConfigError when a tracker's library is missing; MissingRangeError, ArchiveError, BrokerError when the log
    cannot be read.
    """
    check_trackers(config)
    maker = PointMaker(config)
    points = []
    ends, begins = ([bound(entity) for entity in ENTITIES] for bound in (view.end_offsets, view.begin_offsets))
    total = sum(sum(offsets.values()) for offsets in ends) - sum(sum(offsets.values()) for offsets in begins)
    done = 0
    for entity in ENTITIES:
        for event in view.read(entity):
            points += maker.feed(event)
            done += 1
            progress(done, total)
    enough = max(len(points), config.trackers.queue)
    settings = config.trackers.model_copy(update={"queue": max(1, enough)})
    feeds = open_feeds(config.model_copy(update={"trackers": settings}))
    for point in points:
        for feed in feeds:
            feed.put(point)
    deadline = time.monotonic() + timeout_s
    unsent = [feed.name for feed in feeds if not feed.close(max(0.1, deadline - time.monotonic()))]
    return Tracked(len(points), maker.unreadable, tuple(unsent))


def _read(reader: EventReader, maker: PointMaker, feeds: list[Feed]) -> None:
    while events := reader.poll(0.05, max_events=2000):
        for event in events:
            for point in maker.feed(event):
                for feed in feeds:
                    feed.put(point)
