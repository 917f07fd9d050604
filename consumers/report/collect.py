"""Reads a run's log to its present end and tells its story."""

from __future__ import annotations

import time

from consumers.report.measures import correctness_function
from consumers.report.reducer import ORDER, Story, StoryTeller
from rft.config import Config
from rft.errors import BrokerError
from rft.log.events import EventReader

STALL_S = 20.0
"""Without a single event for so long, the broker counts as gone."""


def collect(config: Config, within_s: float | None = None) -> Story:
    """Everything the log holds now.

    Args:
        within_s: Time after which the story may break off, in seconds; it is then not ``complete``.

    Raises:
        BrokerError: The broker cannot be reached or stopped answering.
    """
    teller = StoryTeller(config, correctness_function(config.processor.rewards))
    deadline = time.monotonic() + within_s if within_s is not None else None
    for entity in ORDER:
        with EventReader(config, "report", [entity]) as reader:
            ends = reader.end_offsets()
            heard = time.monotonic()
            while not reader.caught_up(ends):
                events = reader.poll(0.5, max_events=2000)
                teller.feed_all(events)
                now = time.monotonic()
                heard = now if events else heard
                if now - heard > STALL_S:
                    raise BrokerError(f"reading {entity} for the report: nothing came for {STALL_S:g} s")
                if deadline is not None and now > deadline:
                    teller.story.complete = False
                    return teller.story
    return teller.story
