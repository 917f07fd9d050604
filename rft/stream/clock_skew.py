"""Says when events were published, although their timestamps come from producers' clocks, which may be wrong. Pure.

A timestamp alone does not tell a wrong clock from an event that waited on the log. These facts do:

- No event is published after it is received.
- An event was not published before the events before it in its partition.
- The log keeps no event for longer than its retention.
- An event beyond the end that the partition had when it was assigned is new: it is received when it is published.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from rft.stream.actions import Received, Source

logger = logging.getLogger(__name__)

TOLERANCE_MS = 300_000
"""A difference that is no wrong clock: events may be that late when a processor is busy."""
LOGGED_EVERY = 10_000
"""Events of wrong clocks from one line in the log to the next."""


class ClockSkew:
    """Compares the timestamps of events with the processor's clock and with each other."""

    def __init__(self, counts: Counter[str], max_age_ms: int | None = None) -> None:
        """``counts`` receives ``clock:ahead`` and ``clock:behind``: events whose timestamp is off by minutes or more.

        ``max_age_ms`` is the log's retention; None when it is not known.
        """
        self._counts = counts
        self._max_age_ms = max_age_ms
        self._newest_ms: dict[tuple[Source, int], int] = {}
        """When the newest event of each partition was published."""
        self._backlog_ends: dict[tuple[Source, int], int] = {}
        """Ends of the partitions when they were assigned; where not known, every event may have waited on the log."""
        self.ahead_ms = 0
        """Largest difference of a timestamp that is later than the event's arrival."""
        self.behind_ms = 0
        """Largest difference of a timestamp that is earlier than the event can have been published."""

    def assigned(self, source: Source, partition: int, end: int) -> None:
        """Note the end that a partition has while it is assigned."""
        self._backlog_ends[source, partition] = end

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget revoked partitions, which may be read again from earlier offsets."""
        revoked = set(partitions)
        self._newest_ms = {at: newest for at, newest in self._newest_ms.items() if at[1] not in revoked}
        self._backlog_ends = {at: end for at, end in self._backlog_ends.items() if at[1] not in revoked}

    def published_ms(self, source: Source, event: Received, now_ms: int) -> int:
        """Return when the event was published, as closely as is known. Take each event once, in order."""
        at, stamp = (source, event.partition), event.timestamp_ms
        is_new = event.offset >= self._backlog_ends.get(at, 2**63)
        too_old = self._max_age_ms is not None and stamp < now_ms - self._max_age_ms
        plausible = min(max(stamp, self._newest_ms.get(at, 0)), now_ms)
        published = now_ms if is_new or too_old or stamp <= 0 else plausible
        self._newest_ms[at] = published
        if stamp > 0:
            self._measure(source, event, now_ms, published)
        return published

    def _measure(self, source: Source, event: Received, now_ms: int, published_ms: int) -> None:
        ahead_ms, behind_ms = event.timestamp_ms - now_ms, published_ms - event.timestamp_ms
        if ahead_ms > TOLERANCE_MS:
            self.ahead_ms = max(self.ahead_ms, ahead_ms)
            self._note("ahead", "ahead of", source, event, ahead_ms)
        elif behind_ms > TOLERANCE_MS:
            self.behind_ms = max(self.behind_ms, behind_ms)
            self._note("behind", "behind", source, event, behind_ms)

    def _note(self, count: str, direction: str, source: Source, event: Received, difference_ms: int) -> None:
        self._counts[f"clock:{count}"] += 1
        if self._counts[f"clock:{count}"] % LOGGED_EVERY != 1:
            return
        producer = next((value for name, value in reversed(event.headers) if name == "ce_source" and value), b"unknown")
        logger.warning(
            "%s %d:%d: the timestamp is %.0f s %s the time of its arrival (producer %s; %d such events so far). Set "
            "the producer's clock: retention deletes by timestamps. Deadlines do not use this one",
            source,
            event.partition,
            event.offset,
            difference_ms / 1000,
            direction,
            producer.decode("utf-8", "replace"),
            self._counts[f"clock:{count}"],
        )
