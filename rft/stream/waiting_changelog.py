"""Folds the events of ``waiting`` into the newest state of each group. Pure.

Only processors write to this topic, but anyone may be able to. An event that is no state of a group changes nothing,
and neither does a tombstone that no processor writes: processors delete a group only after they have released it, or
when no experience of it has come.
"""

from __future__ import annotations

from rft.errors import DecodeError
from rft.log.events import Event
from rft.log.records import Reject, read_record
from schemas.events import Waiting

Key = tuple[int, bytes | None]
"""Partition and key."""


class WaitingChangelog:
    """Holds the newest state of each group. Feed it ``waiting``, each partition in order."""

    def __init__(self, reject: Reject) -> None:
        """``reject`` takes the events that change nothing."""
        self._reject = reject
        self.groups: dict[Key, Waiting] = {}
        self.overwritten: set[Key] = set()
        """Groups whose newest event on the log is not their state, which compaction may therefore delete."""

    def feed(self, event: Event) -> None:
        """Take in one event."""
        key = event.partition, event.key
        group = self.groups.get(key)
        if event.value is None:
            if group is not None and group.group_size and not group.released:
                error = DecodeError("is a tombstone of a group that still waits; processors write none", field="value")
                self._reject(event, "validate", error)
                self.overwritten.add(key)
            else:
                self.groups.pop(key, None)
                self.overwritten.discard(key)
            return
        found = read_record(event, Waiting, self._reject)
        if found is not None:
            self.groups[key] = found
            self.overwritten.discard(key)
        elif group is not None:
            self.overwritten.add(key)
