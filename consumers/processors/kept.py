"""Notices what the log has deleted before a processor read it: Faust goes on at what is left, and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError, MissingRangeError
from rft.log.clients import make_consumer
from rft.log.ends import ask_offsets
from rft.log.kept import SKIP, deleted, skip_or_raise
from rft.log.topics import topic_name
from rft.stream.actions import Source

AGAIN_S = 1.0
Where = tuple[Source, int]
"""(topic, partition)"""

logger = logging.getLogger(__name__)


class Kept:
    """Compares where reading goes on with where the log begins: at each assignment, at each gap between events, and
    whenever asked. In the event loop's thread; what it asks the broker it asks in another.
    """

    def __init__(self, config: Config, fail: Callable[[Exception], None]) -> None:
        """``fail`` gets the MissingRangeError."""
        self._config = config
        self._fail = fail
        self._next: dict[Where, int] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._consumer: KafkaConsumer | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def looking(self) -> bool:
        """Whether a comparison is under way: until it has ended nothing may be committed, or what is missing would
        count as read."""
        return bool(self._looking)

    def assigned(self, places: Collection[Where]) -> None:
        """These partitions are read from now on, from where they were committed."""
        self._next.clear()
        self._start(self._compare_committed(list(places)))

    def received(self, where: Where, offset: int) -> None:
        """An event has come."""
        expected = self._next.get(where)
        if expected is not None and offset > expected:
            self._start(self._compare({where: expected}))
        self._next[where] = max(offset + 1, expected or 0)

    def look(self) -> None:
        """Compare all: a partition from which nothing comes any more may have lost what was to come."""
        self._start(self._compare(dict(self._next)))

    async def close(self) -> None:
        """Stop comparing and disconnect."""
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.close)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _compare_committed(self, places: list[Where]) -> None:
        committed = await self._ask(self._committed, places)
        await self._compare(committed)
        for where, at in committed.items():
            self._next.setdefault(where, at)

    async def _compare(self, positions: Mapping[Where, int]) -> None:
        begins = await self._ask(self._begins, list(positions))
        for where, at in positions.items():
            if at < begins[where]:
                try:
                    await asyncio.to_thread(self._refuse, where, at, begins[where])
                except MissingRangeError as error:
                    self._fail(error)
                    # The worker ends now, and nothing more may be committed.
                    await asyncio.Event().wait()
                self._next[where] = max(self._next.get(where, 0), begins[where])

    def _refuse(self, where: Where, at: int, begin: int) -> None:
        error = deleted(self._config, *where, at, begin, SKIP, needed="processors had not read them yet")
        skip_or_raise(self._config, error)

    async def _ask(self, ask: Callable[[list[Where]], dict[Where, int]], places: list[Where]) -> dict[Where, int]:
        while True:
            with contextlib.suppress(BrokerError, KafkaError):
                return await asyncio.to_thread(self._alone, ask, places)
            await asyncio.sleep(AGAIN_S)

    def _alone(self, ask: Callable[[list[Where]], dict[Where, int]], places: list[Where]) -> dict[Where, int]:
        with self._one_at_a_time:
            if self._consumer is None:
                group = f"{self._config.log.namespace}.processors"
                self._consumer = make_consumer(self._config, "processor-kept", group)
            return ask(places)

    def _committed(self, places: list[Where]) -> dict[Where, int]:
        """Of those that have a committed position."""
        assert self._consumer is not None
        found = {where: self._consumer.committed(self._partition(where)) for where in places}
        return {where: int(offset) for where, offset in found.items() if offset is not None}

    def _begins(self, places: list[Where]) -> dict[Where, int]:
        assert self._consumer is not None
        partitions = {self._partition(where): where for where in places}
        if not partitions:
            return {}
        return {partitions[at]: n for at, n in ask_offsets(self._consumer.beginning_offsets, partitions).items()}

    def _partition(self, where: Where) -> TopicPartition:
        return TopicPartition(topic_name(self._config, where[0]), where[1])
