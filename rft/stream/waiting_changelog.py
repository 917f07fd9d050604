"""Folds the events of ``waiting`` into the newest state of each group. Pure.

Only processors write to this topic, but anyone may be able to. An event that is no state of a group changes nothing,
and neither does a tombstone that no processor writes: processors delete a group only after they have released it, or
when no experience of it has come.
"""

from __future__ import annotations

from collections.abc import Iterator

from rft.errors import DecodeError
from rft.log.changelog import MAX_BYTES
from rft.log.events import Event
from rft.log.records import Reject, read_record
from rft.stream.waiting_samples import check_members
from schemas.codec import decode, encode
from schemas.events import Waiting

Key = tuple[int, bytes | None]
"""Partition and key."""


class WaitingChangelog:
    """Holds the newest state of each group, encoded to save memory. Feed it ``waiting``, each partition in order."""

    def __init__(self, reject: Reject) -> None:
        """``reject`` takes the events that change nothing."""
        self._reject = reject
        self._encoded: dict[Key, bytes] = {}
        self._waits: set[Key] = set()
        """Groups that are not released and of which an experience has come."""
        self._overwritten: set[Key] = set()

    def clear(self) -> None:
        """Forget everything."""
        self._encoded.clear()
        self._waits.clear()
        self._overwritten.clear()

    def feed(self, event: Event) -> None:
        """Take in one event."""
        key = event.partition, event.key
        if event.value is None and key not in self._waits:
            self._encoded.pop(key, None)
            return
        group: Waiting | None = None
        if event.value is None:
            error = DecodeError("is none, but the group still waits: no processor writes this tombstone", field="value")
            self._reject(event, "validate", error)
        else:
            group = read_record(event, Waiting, self._reject, check=check_members)
        if group is None:
            self._overwritten.add(key)
            return
        self._overwritten.discard(key)
        self._encoded[key] = encode(group)
        if group.group_size and not group.released:
            self._waits.add(key)
        else:
            self._waits.discard(key)

    def get(self, key: Key) -> Waiting | None:
        """Return the state of a group; None if it has none."""
        encoded = self._encoded.get(key)
        return None if encoded is None else decode(encoded, Waiting, max_bytes=MAX_BYTES)

    def groups(self, partition: int) -> Iterator[Waiting]:
        """Yield the groups of one partition."""
        for key in self._encoded:
            if key[0] == partition and (group := self.get(key)) is not None:
                yield group

    def overwritten(self) -> Iterator[tuple[int, Waiting]]:
        """Yield the groups whose newest event on the log is not their state, each with its partition."""
        for key in self._overwritten:
            if (group := self.get(key)) is not None:
                yield key[0], group
