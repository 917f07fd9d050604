"""Notices outages of the broker, so that the deadlines of groups do not count while nothing can come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from consumers.processors.offset_queries import OffsetQueries
from rft.config import Config
from rft.log.coordinates import EntityPartition

ASK_S = 1.0
AWAY_S = 10.0
"""A broker that does not answer for so long is away. A moved leader costs one unanswered query (ANSWER_S)."""
LOOP_S = 0.1
"""If the event loop was blocked, the answer may be there and not yet delivered."""


class BrokerWatch:
    """Asks the broker a small question every second."""

    def __init__(self, config: Config, went_away: Callable[[], None], came_back: Callable[[], None]) -> None:
        """``came_back`` is called after each outage; ``went_away`` before it, unless the process itself stood still."""
        self._queries = OffsetQueries(config)
        self._went_away = went_away
        self._came_back = came_back

    async def run(self) -> None:
        """Watch until cancelled."""
        asked_about = EntityPartition("experiences", 0)
        while True:
            began = time.monotonic()
            answer = asyncio.create_task(self._queries.answered_at(asked_about))
            await asyncio.wait([answer], timeout=AWAY_S)
            away = not (await asyncio.wait([answer], timeout=LOOP_S))[0]
            if away:
                self._went_away()
            if await answer - began > AWAY_S or away:
                self._came_back()
            await asyncio.sleep(ASK_S)

    async def close(self) -> None:
        """Disconnect."""
        await self._queries.close()
