"""Notices events that a processor was never given: the log has deleted them, or Faust passes them over.

Neither tells. Whoever commits what comes after them has lost them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from consumers.processors.offset_queries import AGAIN_S, OffsetQueries, Where
from rft.config import Config
from rft.errors import BrokerError, MissingRangeError
from rft.log.retention import SKIP, deleted, skip_or_raise

STALL_S = 30.0
"""Time in which an event that is on the log must come, if the processor has nothing else to do."""

AGAIN = "Nothing of them was committed: started again, the processor reads them"


class MissedEventDetector:
    """Compares what comes with what is on the log. In the event loop's thread.

    - At each assignment, at each gap between events and whenever asked: does the log begin after what is to come?
    - At the first event after an assignment: is it the first one on the log? (Later ones are in the order that the
      client fetched them; only between assignments does Faust throw away what it has fetched.)
    - Whenever asked: is there an event that does not come?
    """

    def __init__(self, config: Config, fail: Callable[[Exception], None]) -> None:
        """``fail`` gets the MissingRangeError or BrokerError that the worker has to end with."""
        self._config = config
        self._fail = fail
        self._questions = OffsetQueries(config)
        self._next: dict[Where, int] = {}
        self._fresh: set[Where] = set()
        """Nothing has come of these since they were assigned."""
        self._starts: asyncio.Future[dict[Where, int]] = asyncio.get_running_loop().create_future()
        """Where reading begins."""
        self._seen: dict[Where, int] = {}
        """What came next when we looked last: only what stands still is looked at more closely."""
        self._overdue: dict[tuple[Where, int], float] = {}
        """Since when (monotonic seconds) the event at or after an offset has been known to be there."""
        self._nothing_before: dict[Where, int] = {}
        """There is no event from what comes next up to here: transaction markers have offsets too."""
        self._looking: set[asyncio.Task[None]] = set()

    @property
    def looking(self) -> bool:
        """Whether a comparison is under way: until it has ended nothing may be committed, or what is missing would
        count as read."""
        return bool(self._looking)

    def assigned(self, places: Collection[Where]) -> None:
        """These partitions are read from now on, from where they were committed, and no others."""
        self._next.clear()
        self._seen.clear()
        self._overdue.clear()
        self._nothing_before.clear()
        self._fresh = set(places)
        self._starts = asyncio.get_running_loop().create_future()
        if places:
            self._start(self._compare_starts(list(places), self._starts))

    def received(self, where: Where, offset: int) -> None:
        """An event has come."""
        if where in self._fresh:
            self._fresh.discard(where)
            self._start(self._confirm_first(where, offset, self._starts))
        expected = self._next.get(where)
        if expected is not None and offset > expected:
            self._start(self._compare({where: expected}))
        self._next[where] = max(offset + 1, expected or 0)

    def look(self, *, idle: bool) -> None:
        """Compare all: a partition from which nothing comes any more may have lost what was to come.

        Args:
            idle: Whether the processor waits for events, and not events for the processor.
        """
        self._start(self._compare(dict(self._next)))
        still = {where: at for where, at in self._next.items() if self._seen.get(where) == at}
        self._seen = dict(self._next)
        if idle and still:
            self._start(self._look_for_overdue(still))
        else:
            self._overdue.clear()

    async def close(self) -> None:
        """Stop comparing and disconnect."""
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        await self._questions.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _compare_starts(self, places: list[Where], starts: asyncio.Future[dict[Where, int]]) -> None:
        committed = await self._questions.committed(places)
        begins = await self._questions.begins(places)
        await self._refuse_deleted(committed, begins)
        starts.set_result({where: max(committed.get(where, 0), begin) for where, begin in begins.items()})
        if starts is self._starts:
            for where, at in starts.result().items():
                self._next.setdefault(where, at)

    async def _compare(self, positions: Mapping[Where, int]) -> None:
        await self._refuse_deleted(positions, await self._questions.begins(list(positions)))

    async def _refuse_deleted(self, positions: Mapping[Where, int], begins: Mapping[Where, int]) -> None:
        for where, at in positions.items():
            if at < begins[where]:
                try:
                    await asyncio.to_thread(self._refuse, where, at, begins[where])
                except MissingRangeError as error:
                    await self._end(error)
                self._next[where] = max(self._next.get(where, 0), begins[where])

    async def _confirm_first(self, where: Where, offset: int, starts: asyncio.Future[dict[Where, int]]) -> None:
        at = (await starts)[where]
        while at < offset:
            found = await self._questions.first_event(where, at)
            if found is not None:
                if found < offset:
                    said = f"{where[0]}, partition {where[1]}: offset {offset} came first, though {found} is before it"
                    await self._end(BrokerError(f"{said}. {AGAIN}"))
                return
            # An event has come from there; so it has been deleted since, or the broker could not say.
            await asyncio.sleep(AGAIN_S)
            at = max(at, (await self._questions.begins([where]))[where])

    async def _look_for_overdue(self, positions: Mapping[Where, int]) -> None:
        ends = await self._questions.ends(list(positions))
        overdue: dict[tuple[Where, int], float] = {}
        for where, at in positions.items():
            if ends[where] <= max(at, self._nothing_before.get(where, 0)):
                continue
            found = await self._questions.first_event(where, at)
            if found is None:
                self._nothing_before[where] = ends[where]
            elif self._next.get(where) == at:
                since = overdue[where, at] = self._overdue.get((where, at), time.monotonic())
                if (waited := time.monotonic() - since) >= STALL_S:
                    said = f"{where[0]}, partition {where[1]}: offset {found} has been there for {waited:.0f} s"
                    await self._end(BrokerError(f"{said} and does not come. {AGAIN}"))
        self._overdue = overdue

    async def _end(self, error: Exception) -> None:
        self._fail(error)
        # The worker ends now, and nothing more may be committed.
        await asyncio.Event().wait()

    def _refuse(self, where: Where, at: int, begin: int) -> None:
        error = deleted(self._config, *where, at, begin, SKIP, needed="processors had not read them yet")
        skip_or_raise(self._config, error)
