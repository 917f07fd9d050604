"""Tells which rows belong to a try of a rollout that gave way to another try of it. Pure.

A sample is made of the rows of one try (:mod:`rft.stream.sample_rows`). The rows of its other tries are duplicates,
although some of their ids may be nowhere in ``ready``: another try may have fewer rows.
"""

from __future__ import annotations

from collections import defaultdict

from consumers.audit.facts import Facts, Published
from rft.log.coordinates import LogPosition


class Tries:
    """Knows the tries of each sample of several rows."""

    def __init__(self, facts: Facts) -> None:
        several = {event.sample_id for event in facts.published.values() if event.attempt and event.sample_id}
        self._kept: defaultdict[str, set[str]] = defaultdict(set)
        """Tries that are in ``ready``, or wait for external rewards."""
        for scored in facts.scored.values():
            if scored.sample_id in several:
                self._kept[scored.sample_id].add(scored.attempt)
        for waiting in facts.waiting_tries.values():
            for sample_id, attempt in waiting:
                if sample_id in several:
                    self._kept[sample_id].add(attempt)
        self._begun: defaultdict[str, list[tuple[LogPosition, str]]] = defaultdict(list)
        """Where the row 0 of each try stands."""
        for position, event in facts.published.items():
            if event.sample_id in several and event.row == 0:
                self._begun[event.sample_id].append((position, event.attempt))

    def gave_way(self, position: LogPosition, event: Published) -> bool:
        """Return whether another try of the sample was kept; if none is known to be, whether a later one has begun."""
        if event.sample_id is None or (event.sample_id not in self._begun and event.sample_id not in self._kept):
            return False
        kept = self._kept.get(event.sample_id)
        if kept:
            return event.attempt not in kept
        return any(
            at.partition == position.partition and at.offset > position.offset and attempt != event.attempt
            for at, attempt in self._begun[event.sample_id]
        )
