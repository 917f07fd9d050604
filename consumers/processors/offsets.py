"""How far each partition is done with, and telling the broker.

Faust's own book-keeping commits past events whose neighbours finish first, so offsets are counted here: what is
committed is the position before which every event's outcome is acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

import faust
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from rft.log.watermark import OffsetWatermark

logger = logging.getLogger(__name__)

COMMIT_TIMEOUT_S = 3.0


class Offsets:
    """Watermarks of the partitions that are ours now."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._marks: dict[int, OffsetWatermark] = {}
        self._committed: dict[int, int] = {}

    @property
    def partitions(self) -> list[int]:
        return sorted(self._marks)

    @property
    def committed(self) -> Mapping[int, int]:
        """What was committed since the partitions became ours, by partition."""
        return self._committed

    @property
    def unresolved(self) -> int:
        """Events taken whose outcome is not yet acknowledged."""
        return sum(mark.in_flight for mark in self._marks.values())

    def assigned(self, partitions: Iterable[faust.types.TP]) -> list[int]:
        """Numbers of those partitions that are of this topic."""
        return sorted(partition.partition for partition in partitions if partition.topic == self._topic)

    def reset(self, partitions: Iterable[int]) -> None:
        """These partitions are ours from now on, and no others. All of them are read from their committed position
        again, so nothing of before counts; what still finishes for an old watermark goes nowhere."""
        self._marks = {partition: OffsetWatermark() for partition in partitions}
        self._committed = {}

    def mark(self, partition: int) -> OffsetWatermark:
        return self._marks[partition]

    def owns(self, partition: int) -> bool:
        return partition in self._marks

    async def commit(self, app: faust.App) -> None:
        """Commit what has advanced. A refusal is no fault: the events come again and are recognised."""
        due = self._advanced()
        if not due:
            return
        offsets = {TopicPartition(self._topic, p): OffsetAndMetadata(offset, "") for p, offset in due.items()}
        thread = app.consumer._thread
        try:
            await asyncio.wait_for(thread.call_thread(thread._ensure_consumer().commit, offsets), COMMIT_TIMEOUT_S)
        except (KafkaError, TimeoutError) as error:
            logger.warning("offsets not committed, will try again: %s", str(error) or type(error).__name__)
            return
        self._committed.update(due)

    def _advanced(self) -> dict[int, int]:
        positions = {partition: mark.committable for partition, mark in self._marks.items()}
        return {p: offset for p, offset in positions.items() if offset is not None and offset != self._committed.get(p)}
