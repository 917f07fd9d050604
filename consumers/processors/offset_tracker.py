"""Tracks which offsets may be committed.

Faust's own tracking commits past events whose neighbors finish first, so offsets are counted here: committed is the
offset before which every event's outcome is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from consumers.processors.contract import EventSource
from consumers.processors.divided_groups import DividedGroups, encode_offsets
from rft.log.coordinates import EntityPartition, Offsets
from rft.log.watermark import OffsetWatermark
from rft.stream.actions import Source

CommitLimit = Callable[[EntityPartition], int | None]
"""Returns the highest offset of a partition that may be committed now; None if there is no limit."""


class OffsetTracker:
    """Holds the watermarks of one topic's partitions that are assigned to this worker."""

    def __init__(self, entity: Source) -> None:
        self._entity = entity
        self._watermarks: dict[int, OffsetWatermark] = {}
        self._committed: dict[int, int] = {}
        self._metadata: dict[int, str] = {}
        """What was committed beside ``_committed``."""
        self._divided: dict[int, DividedGroups] = {}

    @property
    def partitions(self) -> list[int]:
        return sorted(self._watermarks)

    @property
    def committed(self) -> Offsets:
        """What was committed since the partitions were assigned."""
        return self._committed

    @property
    def unresolved(self) -> int:
        """Number of events received whose outcome is not yet acknowledged."""
        return sum(watermark.in_flight for watermark in self._watermarks.values())

    def assign(self, partitions: Iterable[int]) -> None:
        """Replace the assignment.

        Every partition is read from its committed offset again, so nothing that was counted before applies. Events that
        still finish on an old watermark are ignored.
        """
        self._watermarks = {partition: OffsetWatermark() for partition in partitions}
        self._committed, self._metadata = {}, {}
        self._divided = {partition: DividedGroups() for partition in self._watermarks}

    def resume(self, partition: int, finished: Iterable[int]) -> None:
        """Set the events of an assigned partition that were finished before it was assigned (see ``was_finished``)."""
        self._divided[partition] = DividedGroups(finished)

    def was_finished(self, partition: int, offset: int) -> bool:
        """Return whether a former owner of the partition has finished this event."""
        return self._divided[partition].holds(offset)

    def watermark(self, partition: int) -> OffsetWatermark:
        return self._watermarks[partition]

    def divided(self, partition: int) -> DividedGroups:
        return self._divided[partition]

    def owns(self, partition: int) -> bool:
        return partition in self._watermarks

    @property
    def committed_positions(self) -> dict[EntityPartition, int]:
        """``committed``, by topic and partition."""
        return {EntityPartition(self._entity, p): offset for p, offset in self._committed.items()}

    @property
    def uncommitted_positions(self) -> dict[EntityPartition, int]:
        """What could be committed and is not."""
        offsets = {partition: watermark.committable for partition, watermark in self._watermarks.items()}
        return {
            EntityPartition(self._entity, p): offset
            for p, offset in offsets.items()
            if offset is not None and offset != self._committed.get(p)
        }

    @property
    def unfinished_positions(self) -> dict[EntityPartition, int]:
        """The first event of each partition whose outcome is not yet acknowledged, if there is one."""
        return {
            EntityPartition(self._entity, partition): watermark.committable
            for partition, watermark in self._watermarks.items()
            if watermark.in_flight and watermark.committable is not None
        }

    async def commit(self, source: EventSource, limit: CommitLimit) -> None:
        """Commit what has advanced, up to ``limit``.

        A failed commit is no error: the events come again and are recognized.
        """
        advanced, metadata = {}, {}
        for partition, watermark in self._watermarks.items():
            offset, most = watermark.committable, limit(EntityPartition(self._entity, partition))
            if offset is None:
                continue
            allowed = offset if most is None else min(offset, most)
            if allowed < 0:
                continue
            beside = encode_offsets(allowed, self._divided[partition].behind(allowed))
            if (allowed, beside) != (self._committed.get(partition), self._metadata.get(partition)):
                advanced[partition], metadata[partition] = allowed, beside
        committed, committed_metadata = self._committed, self._metadata
        if advanced and await source.commit(self._entity, advanced, metadata):
            # Not self._committed: the partitions may have been assigned again meanwhile.
            committed.update(advanced)
            committed_metadata.update(metadata)
