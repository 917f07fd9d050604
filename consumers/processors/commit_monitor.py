"""Notices committed offsets that stand still: names them, and ends the worker if commits do not get through."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from consumers.processors.offset_queries import OffsetQueries
from rft.config import Config
from rft.errors import BrokerError
from rft.log.coordinates import EntityPartition

STALL_S = 60.0
"""Time that a committed offset may stand still while later events are done: longer than a rebalance takes."""
ANSWER_S = 10.0
"""A broker that takes longer to answer is away: commits wait for it, and no worker has to end."""
NAME_EVERY_S = 60.0
"""Between two lines that name the events which later ones wait for."""

logger = logging.getLogger(__name__)

Standing = tuple[EntityPartition, int | None]
"""A partition and the offset at which it stands."""


class CommitMonitor:
    """Compares what could be committed with what is. Runs in the event loop's thread."""

    def __init__(self, config: Config, fail: Callable[[Exception], None]) -> None:
        """``fail`` takes the BrokerError that the worker has to end with."""
        self._fail = fail
        self._queries = OffsetQueries(config)
        self._uncommitted_since: dict[Standing, float] = {}
        self._unfinished_since: dict[Standing, float] = {}
        self._named_at = -NAME_EVERY_S
        self._confirming: asyncio.Task[None] | None = None

    def check(
        self,
        committed: Mapping[EntityPartition, int],
        uncommitted: Mapping[EntityPartition, int],
        unfinished: Mapping[EntityPartition, int],
    ) -> None:
        """Compare once; call this every few seconds.

        Args:
            committed: The offset of each partition that was committed last.
            uncommitted: The offset of each partition that could be committed and is not.
            unfinished: The first offset of each partition whose outcome later events wait for.
        """
        now = time.monotonic()
        self._uncommitted_since = _since(self._uncommitted_since, {at: committed.get(at) for at in uncommitted}, now)
        self._unfinished_since = _since(self._unfinished_since, unfinished, now)
        if now - self._named_at >= NAME_EVERY_S:
            self._name_unfinished(now)
        overdue = {at for (at, _), since in self._uncommitted_since.items() if now - since >= STALL_S}
        if overdue and (self._confirming is None or self._confirming.done()):
            self._confirming = asyncio.create_task(self._confirm({at: uncommitted[at] for at in overdue}))

    async def close(self) -> None:
        """Stop comparing and disconnect."""
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.gather(self._confirming, return_exceptions=True)
        await self._queries.close()

    def _name_unfinished(self, now: float) -> None:
        for (at, offset), since in self._unfinished_since.items():
            if now - since >= NAME_EVERY_S:
                self._named_at = now
                logger.info(
                    "%s, partition %d: later events wait to be committed until offset %d is done, for %.0f s now. It "
                    "waits for the rest of its group, for rewards, or for its group's deadline",
                    *at,
                    offset,
                    now - since,
                )

    async def _confirm(self, overdue: Mapping[EntityPartition, int]) -> None:
        asked_at = time.monotonic()
        found = await self._queries.committed(list(overdue))
        if time.monotonic() - asked_at > ANSWER_S:
            self._uncommitted_since.clear()
            return
        for at, offset in sorted(overdue.items()):
            standing = [since for (one, _), since in self._uncommitted_since.items() if one == at]
            if standing and found.get(at, 0) < offset:
                stands = f"offset {found[at]}" if at in found else "nothing"
                self._fail(
                    BrokerError(
                        f"{at.entity}, partition {at.partition}: {stands} is committed for "
                        f"{time.monotonic() - standing[0]:.0f} s now, although everything before offset {offset} is "
                        "done and the broker answers: commits do not get through. The processor ends; a restarted "
                        "one reads from the committed offset on. If this comes again, look for errors of its consumer "
                        "group in the broker's log"
                    )
                )
                return


def _since(
    before: Mapping[Standing, float], standing: Mapping[EntityPartition, int | None], now: float
) -> dict[Standing, float]:
    """Return since when each partition has stood where it stands."""
    return {at: before.get(at, now) for at in standing.items()}
