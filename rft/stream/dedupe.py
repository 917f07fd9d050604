"""Which groups have been released already, remembered in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

REMEMBERED = 65_536
"""Groups a worker remembers, about 8 MB. Repetitions come from redelivery, which reaches back no further than the
oldest open group; a group forgotten here that comes again after all is released again and dropped by the trainer,
who knows every retired task number."""


class ReleasedGroups:
    """Ids of the groups released most recently."""

    def __init__(self, capacity: int = REMEMBERED) -> None:
        self._capacity = capacity
        self._present: OrderedDict[str, frozenset[str] | None] = OrderedDict()

    def add(self, group_id: str, present: Iterable[str], *, whole: bool) -> None:
        """Remember a release; the oldest is forgotten when there are too many.

        Args:
            present: Ids of the members that were released. Kept only when others may still come.
            whole: True when every member had come.
        """
        self._present[group_id] = None if whole else frozenset(present)
        self._present.move_to_end(group_id)
        while len(self._present) > self._capacity:
            self._present.popitem(last=False)

    def discard(self, group_id: str) -> None:
        """Forget a release that did not happen after all."""
        self._present.pop(group_id, None)

    def repetition(self, group_id: str, experience_id: str) -> Literal["duplicate", "late"] | None:
        """Why an event of a released group has nothing left to do; None when its group was not released."""
        if group_id not in self._present:
            return None
        present = self._present[group_id]
        return "duplicate" if present is None or experience_id in present else "late"

    def __len__(self) -> int:
        return len(self._present)
