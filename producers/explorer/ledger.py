"""Records which tasks an explorer was given, and how far its offsets may be committed (pure).

A task is finished when the broker has acknowledged all its rollouts: of each, the last row. Tasks finish in any order,
so a partition's offset is committed only up to the first unfinished task. Unfinished tasks are delivered again, to the
explorer that has the partition then.

When a partition comes back to an explorer, its tasks are delivered again from the last commit. Tasks that still run
here, or were finished here after that commit, are recognized and not started a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rft.log.watermark import OffsetWatermark


@dataclass(slots=True)
class _Partition:
    unpublished: dict[int, int] = field(default_factory=dict)
    """Number of rollouts that each running task still has to publish, by offset."""
    finished: set[int] = field(default_factory=set)
    """Offsets of tasks that are finished but not known to be committed."""
    watermark: OffsetWatermark | None = None
    """None while the partition belongs to another explorer."""
    committed: int = -1


class TaskLedger:
    """Counts the published rollouts of each delivered task; a task is (partition, offset) in ``tasks``."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def delivered(self, partition: int, offset: int, rollouts: int) -> bool:
        """Note a delivered task with its number of ``rollouts``. False if it runs or has run here already."""
        here = self._partitions.setdefault(partition, _Partition())
        if here.watermark is None:
            here.watermark = OffsetWatermark()
        here.watermark.started(offset)
        if offset in here.finished:
            here.watermark.finished(offset)
            return False
        if offset in here.unpublished:
            return False
        here.unpublished[offset] = rollouts
        if rollouts <= 0:
            self._finish(here, offset)
        return True

    def published(self, partition: int, offset: int) -> None:
        """Note that the broker has acknowledged all rows of one more rollout of the task."""
        here = self._partitions[partition]
        here.unpublished[offset] -= 1
        if here.unpublished[offset] <= 0:
            self._finish(here, offset)

    def lost(self, partitions: Iterable[int]) -> None:
        """Note that another explorer may have these now: they are not committed until they are delivered again."""
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
        """Number of tasks that have rollouts to publish."""
        return sum(len(here.unpublished) for here in self._partitions.values())

    def _finish(self, here: _Partition, offset: int) -> None:
        del here.unpublished[offset]
        here.finished.add(offset)
        if here.watermark:
            here.watermark.finished(offset)
