"""Records which events a member of a consumer group was given, and how far its offsets may be committed (pure).

An event is finished when all that follows from it is on the log: of a task, each rollout; of an experience, its reward.
Events finish in any order, so a partition's offset is committed only up to the first unfinished one. Unfinished events
are delivered again, to the member that has the partition then.

When a partition comes back to a member, its events are delivered again from the last commit. Events that are still
worked on here, or were finished here after that commit, are recognized and not started a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rft.log.watermark import OffsetWatermark


@dataclass(slots=True)
class _Partition:
    unpublished: dict[int, int] = field(default_factory=dict)
    """Number of parts that each event in work still has to publish, by offset."""
    finished: set[int] = field(default_factory=set)
    """Offsets of events that are finished but not known to be committed."""
    watermark: OffsetWatermark | None = None
    """None while the partition belongs to another member."""
    committed: int = -1


class DeliveryLedger:
    """Counts the published parts of each delivered event; an event is (partition, offset) in the topic."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def delivered(self, partition: int, offset: int, parts: int) -> bool:
        """Note a delivered event and how many ``parts`` it has, of a task its rollouts.

        False if it is worked on here already, or was finished here.
        """
        here = self._partitions.setdefault(partition, _Partition())
        if here.watermark is None:
            here.watermark = OffsetWatermark()
        here.watermark.started(offset)
        if offset in here.finished:
            here.watermark.finished(offset)
            return False
        if offset in here.unpublished:
            return False
        here.unpublished[offset] = parts
        if parts <= 0:
            self._finish(here, offset)
        return True

    def published(self, partition: int, offset: int) -> None:
        """Note that the broker has acknowledged one more part of the event."""
        here = self._partitions[partition]
        here.unpublished[offset] -= 1
        if here.unpublished[offset] <= 0:
            self._finish(here, offset)

    def abandoned(self, partition: int, offset: int) -> bool:
        """Note that the event is not worked on any more. True if it must be delivered here again."""
        here = self._partitions[partition]
        here.unpublished.pop(offset, None)
        return here.watermark is not None and here.watermark.is_in_flight(offset)

    def lost(self, partitions: Iterable[int]) -> None:
        """Note that another member may have these now: they are not committed until they are delivered again."""
        for partition in partitions:
            here = self._partitions.get(partition)
            if here:
                here.watermark = None
                here.committed = -1

    def committable(self) -> dict[int, int]:
        """Return the next offset by partition, where it is beyond the committed one."""
        offsets = {}
        for partition, here in self._partitions.items():
            offset = here.watermark.committable if here.watermark else None
            if offset is not None and offset > here.committed:
                offsets[partition] = offset
        return offsets

    def committed(self, offsets: dict[int, int]) -> None:
        """Note that the broker has accepted these offsets."""
        for partition, offset in offsets.items():
            here = self._partitions[partition]
            here.committed = offset
            here.finished = {at for at in here.finished if at >= offset}

    @property
    def running(self) -> int:
        """Number of events that have parts to publish."""
        return sum(len(here.unpublished) for here in self._partitions.values())

    @property
    def uncommitted(self) -> int:
        """Number of events that are in work, or finished and not known to be committed."""
        return sum(len(here.unpublished) + len(here.finished) for here in self._partitions.values())

    def _finish(self, here: _Partition, offset: int) -> None:
        del here.unpublished[offset]
        here.finished.add(offset)
        if here.watermark:
            here.watermark.finished(offset)
