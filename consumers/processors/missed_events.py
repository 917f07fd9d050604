"""Detects events that a processor was never given: the log has deleted them, or Faust skips them.

Neither is reported. Committing a later offset would lose them for good, so the detector limits what may be committed
of a partition while it examines that partition. All other commits go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from consumers.processors.offset_queries import RETRY_S, OffsetQueries
from rft.config import Config
from rft.errors import BrokerError, MissingRangeError
from rft.log.coordinates import EntityPartition
from rft.log.open_transactions import HeldBackPartitions, held_back
from rft.log.retention import SKIP, retention_error, skip_or_raise

STALL_S = 30.0
"""Time within which an event that is on the log must come, if the processor has nothing else to do."""

NOTHING = -1
"""Limit for a partition of which nothing may be committed."""
HELD_BACK_EVERY_S = 30.0
"""Between two questions whether a transaction is open."""

ADVICE = "Nothing after it was committed, so a restarted processor reads it"


class MissedEventDetector:
    """Compares the events that come with those on the log. Runs in the event loop's thread.

    - At each assignment, at each jump of offsets and at each ``check``: does the log begin after the next offset?
    - At the first event after an assignment: is it the first one on the log? Later events need no such check: they come
      in the order that the client fetched them, and Faust throws away fetched events only between assignments.
    - At each ``check``: is there an event that does not come?
    """

    def __init__(self, config: Config, fail: Callable[[Exception], None]) -> None:
        """``fail`` takes the MissingRangeError or BrokerError that the worker has to end with."""
        self._config = config
        self._fail = fail
        self._queries = OffsetQueries(config)
        self._next: dict[EntityPartition, int] = {}
        """The next offset that is to come."""
        self._unconfirmed: set[EntityPartition] = set()
        """Partitions of which nothing has come since they were assigned."""
        self._starts: asyncio.Future[dict[EntityPartition, int]] = asyncio.get_running_loop().create_future()
        """Offsets at which reading begins."""
        self._next_at_check: dict[EntityPartition, int] = {}
        """``_next`` at the last check: only partitions that have not moved since are examined further."""
        self._overdue_since: dict[tuple[EntityPartition, int], float] = {}
        """Since when (monotonic seconds) the event at or after an offset has been known to be on the log."""
        self._empty_up_to: dict[EntityPartition, int] = {}
        """There is no event from the next offset up to here: transaction markers have offsets too."""
        self._held_back = HeldBackPartitions()
        self._ask_held_back_at = 0.0
        self._comparisons: set[asyncio.Task[None]] = set()
        self._held: dict[EntityPartition, list[int]] = {}
        """Offsets after which an event may be missing, while comparisons find that out."""

    def commit_limit(self, partition: EntityPartition) -> int | None:
        """Return the highest offset that may be committed now; None if there is no limit.

        The detector is still examining whether an event at this offset was missed.
        """
        held = self._held.get(partition)
        return min(held) if held else None

    def assigned(self, partitions: Collection[EntityPartition]) -> None:
        """Watch these partitions from their committed offsets on, and no others."""
        self._next.clear()
        self._next_at_check.clear()
        self._overdue_since.clear()
        self._empty_up_to.clear()
        self._held = {}
        self._unconfirmed = set(partitions)
        self._starts = asyncio.get_running_loop().create_future()
        if partitions:
            self._start(self._compare_starts(list(partitions), self._starts))

    def received(self, partition: EntityPartition, offset: int) -> None:
        """Note that an event has come."""
        if partition in self._unconfirmed:
            self._unconfirmed.discard(partition)
            self._start(self._confirm_first(partition, offset, self._starts), (partition, NOTHING))
        expected = self._next.get(partition)
        if expected is not None and offset > expected:
            self._start(self._compare_begins({partition: expected}), (partition, expected))
        self._next[partition] = max(offset + 1, expected or 0)

    def check(self, *, idle: bool) -> None:
        """Compare all partitions: one that has become silent may have lost the events that were to come.

        Args:
            idle: Whether the processor waits for events, and no event waits for the processor.
        """
        self._start(self._compare_begins(dict(self._next)))
        silent = {at: offset for at, offset in self._next.items() if self._next_at_check.get(at) == offset}
        self._next_at_check = dict(self._next)
        if idle and silent:
            self._start(self._find_overdue(silent))
        else:
            self._overdue_since.clear()
        if silent and time.monotonic() >= self._ask_held_back_at:
            self._ask_held_back_at = time.monotonic() + HELD_BACK_EVERY_S
            self._start(self._name_held_back(list(silent)))

    async def close(self) -> None:
        """Stop comparing and disconnect."""
        for task in self._comparisons:
            task.cancel()
        await asyncio.gather(*self._comparisons, return_exceptions=True)
        await self._queries.close()

    def _start(self, comparison: Coroutine[Any, Any, None], hold: tuple[EntityPartition, int] | None = None) -> None:
        """Run a comparison. Until it ends, no offset of a partition after that in ``hold`` may be committed."""
        task = asyncio.create_task(comparison)
        self._comparisons.add(task)
        task.add_done_callback(self._comparisons.discard)
        if hold is not None:
            partition, offset = hold
            held = self._held.setdefault(partition, [])
            held.append(offset)
            task.add_done_callback(lambda _: held.remove(offset))

    async def _compare_starts(
        self, partitions: list[EntityPartition], starts: asyncio.Future[dict[EntityPartition, int]]
    ) -> None:
        committed = await self._queries.committed(partitions)
        begins = await self._queries.begins(partitions)
        await self._fail_if_deleted(committed, begins)
        starts.set_result({at: max(committed.get(at, 0), begin) for at, begin in begins.items()})
        if starts is self._starts:
            for at, offset in starts.result().items():
                self._next.setdefault(at, offset)

    async def _compare_begins(self, offsets: Mapping[EntityPartition, int]) -> None:
        await self._fail_if_deleted(offsets, await self._queries.begins(list(offsets)))

    async def _fail_if_deleted(
        self, offsets: Mapping[EntityPartition, int], begins: Mapping[EntityPartition, int]
    ) -> None:
        for at, offset in offsets.items():
            if offset < begins[at]:
                try:
                    await asyncio.to_thread(self._raise_unless_skipped, at, offset, begins[at])
                except MissingRangeError as error:
                    await self._end_with(error)
                self._next[at] = max(self._next.get(at, 0), begins[at])

    async def _confirm_first(
        self, at: EntityPartition, received: int, starts: asyncio.Future[dict[EntityPartition, int]]
    ) -> None:
        offset = (await starts)[at]
        while offset < received:
            found = await self._queries.first_event(at, offset)
            if found is not None:
                if found < received:
                    problem = f"{_name(at)}: offset {received} came first, although {found} is before it"
                    await self._end_with(BrokerError(f"{problem}. {ADVICE}"))
                return
            # An event has come from this range, so either it was deleted meanwhile or the broker could not answer.
            await asyncio.sleep(RETRY_S)
            offset = max(offset, (await self._queries.begins([at]))[at])

    async def _find_overdue(self, offsets: Mapping[EntityPartition, int]) -> None:
        ends = await self._queries.ends(list(offsets))
        overdue_since: dict[tuple[EntityPartition, int], float] = {}
        for at, offset in offsets.items():
            if ends[at] <= max(offset, self._empty_up_to.get(at, 0)):
                continue
            found = await self._queries.first_event(at, offset)
            if found is None:
                self._empty_up_to[at] = ends[at]
            elif self._next.get(at) == offset:
                since = overdue_since[at, offset] = self._overdue_since.get((at, offset), time.monotonic())
                if (waited := time.monotonic() - since) >= STALL_S:
                    problem = f"{_name(at)}: offset {found} has been on the log for {waited:.0f} s and does not come"
                    await self._end_with(BrokerError(f"{problem}. {ADVICE}"))
        self._overdue_since = overdue_since

    async def _name_held_back(self, partitions: list[EntityPartition]) -> None:
        """Name the silent partitions in which an open transaction holds back what was written."""
        with suppress(BrokerError):
            found = await asyncio.to_thread(held_back, self._config, "processor-held-back", partitions)
            for partition, (offset, end) in found.items():
                if self._held_back.note(partition, offset, end):
                    self._held_back.name(partition, end)

    async def _end_with(self, error: Exception) -> None:
        self._fail(error)
        # The worker ends now. This comparison must not: while it runs, nothing after its offset is committed.
        await asyncio.Event().wait()

    def _raise_unless_skipped(self, at: EntityPartition, offset: int, begin: int) -> None:
        error = retention_error(self._config, *at, offset, begin, SKIP, needed="processors had not read them yet")
        skip_or_raise(self._config, error)


def _name(at: EntityPartition) -> str:
    return f"{at.entity}, partition {at.partition}"
