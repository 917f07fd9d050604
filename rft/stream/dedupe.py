"""Remembers in bounded memory which groups have been released."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

REMEMBERED = 65_536
"""Groups that a worker remembers, about 8 MB. Repetitions come from redelivery, which goes back no further than the
oldest open group. If a forgotten group comes again after all, it is released again, and the trainer, which knows every
retired task number, drops it."""


class ReleasedGroups:
    """Holds the ids of the groups released most recently."""

    def __init__(self, capacity: int = REMEMBERED) -> None:
        self._capacity = capacity
        self._released: OrderedDict[str, frozenset[str] | None] = OrderedDict()
        """What names the released samples, and the rows of samples that lack some, by group; None when all its samples
        were released."""

    def add(self, group_id: str, ids: Iterable[str], *, whole: bool) -> None:
        """Remember a release. The oldest is forgotten when there are too many.

        Args:
            ids: Ids of the released samples, and of the rows of samples that lack some. They are stored only when
                others may still come.
            whole: True when every sample had come.
        """
        self._released[group_id] = None if whole else frozenset(ids)
        self._released.move_to_end(group_id)
        while len(self._released) > self._capacity:
            self._released.popitem(last=False)

    def discard(self, group_id: str) -> None:
        """Forget a release that did not happen after all."""
        self._released.pop(group_id, None)

    def repetition(self, group_id: str, *ids: str) -> Literal["duplicate", "late"] | None:
        """Return why an event of a released group has nothing left to do; None when its group was not released.

        Args:
            ids: Names of what the event belongs to: its experience and its sample.
        """
        if group_id not in self._released:
            return None
        released = self._released[group_id]
        return "duplicate" if released is None or not released.isdisjoint(ids) else "late"

    def __len__(self) -> int:
        return len(self._released)
