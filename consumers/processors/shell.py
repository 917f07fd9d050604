"""Between Faust and the pipeline: events in, actions carried out, outcomes noted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import faust

from consumers.processors.missed_events import MissedEventDetector
from consumers.processors.offsets import Offsets
from consumers.processors.output import Output
from consumers.processors.schemas_known import KnownSchemas
from consumers.processors.waiting import WaitingShell
from rft.config import Config
from rft.errors import RegistryError
from rft.log.watermark import OffsetWatermark
from rft.stream.actions import Action, DeadLetter, Publish, Received, Release, Remember, Resolve, Source
from rft.stream.pipeline import Pipeline

logger = logging.getLogger(__name__)

MAX_WRITING_BYTES = 64 * 1024 * 1024
MAX_WRITES = 512
"""Reading waits while more than this is being written and not yet acknowledged."""


class Shell:
    """Runs in the event loop's thread, reward functions included, one event after the other: the consumer's
    heartbeats have a thread of their own in Faust, so a slow function delays events but costs no partitions. One that
    might hang has to bound its own time, as math_verify does.
    """

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        offsets: Mapping[Source, Offsets],
        output: Output,
        schemas: KnownSchemas,
    ) -> None:
        self._pipeline = pipeline
        self._offsets = offsets
        self._output = output
        self._schemas = schemas
        self._writes: set[asyncio.Task[None]] = set()
        self._writing_bytes = 0
        self._room = asyncio.Event()
        self._letters: dict[tuple[int, int], asyncio.Task[None]] = {}
        """Dead letters on their way of events that their groups speak for as well."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception when an outcome could not be written; the worker must end, its events come again."""
        self.gaps = MissedEventDetector(config, self._end_with)
        self._in_hand: set[Source] = set()
        """Of these an event was taken whose turn has not ended."""
        self.waiting: WaitingShell | None = None
        """Only when external rewards are required."""
        if pipeline.room is not None:
            self.waiting = WaitingShell(config, pipeline, output, offsets, self._start, self._take_letters)

    async def consume(self, stream: faust.types.StreamT) -> None:
        """The agent: takes experiences one by one, in order, without waiting for what is written."""
        await self._consume(stream, "experiences")

    async def consume_rewards(self, stream: faust.types.StreamT) -> None:
        """The same for external rewards."""
        await self._consume(stream, "rewards")

    async def _consume(self, stream: faust.types.StreamT, source: Source) -> None:
        async for event in stream.noack().events():
            self._in_hand.add(source)
            if await self._readable(event.message, source):
                self.receive(event.message, source)
            while self._crowded():
                self._room.clear()
                await self._room.wait()
            self._in_hand.discard(source)

    def _crowded(self) -> bool:
        if self.waiting is not None and self.waiting.crowded:
            return True
        return self._writing_bytes > MAX_WRITING_BYTES or len(self._writes) > MAX_WRITES

    async def _readable(self, message: faust.types.tuples.Message, source: Source) -> bool:
        """True when the event's schema is known; False when its partition was taken away while we waited."""
        offsets = self._offsets[source]
        if self.waiting is not None and self.waiting.restoring:
            # New events may come before what waits for them has been read again.
            generation = self.waiting.generation
            await self.waiting.restored.wait()
            if generation != self.waiting.generation:
                return False
        if not offsets.owns(message.partition):
            return False
        mark = offsets.mark(message.partition)
        try:
            await self._schemas.wait_for(message)
        except RegistryError as error:
            self._end_with(error)
            # The worker ends now. Nothing more may be taken: later events must not be done with before this one.
            await asyncio.Event().wait()
        return offsets.owns(message.partition) and offsets.mark(message.partition) is mark

    def receive(self, message: faust.types.tuples.Message, source: Source = "experiences") -> None:
        """Decide about one event and set its writes going."""
        if not self._offsets[source].owns(message.partition):
            return  # read before its partition was taken away
        self._offsets[source].mark(message.partition).started(message.offset)
        self.gaps.received((source, message.partition), message.offset)
        headers = tuple(message.headers or ())
        published_at = int((message.timestamp or 0) * 1000)
        event = Received(message.partition, message.offset, message.key, message.value, headers, published_at)
        decide = self._pipeline.receive if source == "experiences" else self._pipeline.receive_reward
        try:
            actions = decide(event, _now_ms())
        except Exception as error:  # a fault of ours with one event must not stop the others
            logger.exception("%s, partition %d, offset %d", source, message.partition, message.offset)
            actions = [DeadLetter(message.partition, message.offset, "process", error, final=True, source=source)]
        if self.waiting is not None:
            self.waiting.received(source, event)
        for action in actions:
            self._perform(action, message)

    def look(self) -> None:
        """Look for events that the log has and we were not given."""
        self.gaps.look(idle=not self._in_hand)

    def tick(self) -> None:
        """Release what has come to its deadline."""
        if self.waiting is not None and self.waiting.crowded:
            return
        for action in self._pipeline.tick(_now_ms()):
            self._perform(action, None)
        if self.waiting is not None:
            self.waiting.tick()

    async def settle(self, timeout_s: float) -> None:
        """Wait until what is being written is acknowledged, for at most ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        if self.waiting is not None:
            self.waiting.tick()
        while self._writes and (left := deadline - time.monotonic()) > 0:
            # What ends may start what follows from it.
            await asyncio.wait(self._writes, timeout=left)

    async def commit(self, app: faust.App) -> None:
        """Commit what is done with."""
        if self.gaps.looking:
            return
        for offsets in self._offsets.values():
            await offsets.commit(app)
        if self.waiting is not None:
            self.waiting.committed()

    @property
    def unresolved(self) -> int:
        """Events taken whose outcome is not yet acknowledged."""
        return sum(offsets.unresolved for offsets in self._offsets.values())

    def _end_with(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)

    def _perform(self, action: Action, message: faust.types.tuples.Message | None) -> None:
        if isinstance(action, Remember | Release):
            assert self.waiting is not None
            if isinstance(action, Release):
                self.waiting.release(action)
            else:
                self.waiting.remember(action)
            return
        source: Source = "experiences" if isinstance(action, Publish) else action.source
        mark = self._offsets[source].mark(action.partition)
        if isinstance(action, Resolve):
            mark.finished(action.offset)
        elif isinstance(action, Publish):
            self._start(self._publish(action, mark), action.size_bytes)
        elif message is not None:
            task = self._start(self._bury(action, message, mark), len(message.value or b""))
            if not action.final:
                self._letters[action.partition, action.offset] = task

    async def _publish(self, action: Publish, mark: OffsetWatermark) -> None:
        letters = self._take_letters(action.partition, action.resolves)
        await self._output.publish(action.group_id, action.members)
        for letter in letters:
            await letter
        for offset in action.resolves:
            mark.finished(offset)

    async def _bury(self, action: DeadLetter, message: faust.types.tuples.Message, mark: OffsetWatermark) -> None:
        await self._output.bury(action, message)
        if action.final:
            mark.finished(action.offset)

    def _take_letters(self, partition: int, offsets: Iterable[int]) -> list[asyncio.Task[None]]:
        letters = (self._letters.pop((partition, offset), None) for offset in offsets)
        return [letter for letter in letters if letter is not None]

    def _start(self, write: Coroutine[Any, Any, None], size_bytes: int) -> asyncio.Task[None]:
        task = asyncio.create_task(write)
        self._writes.add(task)
        self._writing_bytes += size_bytes

        def ended(task: asyncio.Task[None]) -> None:
            self._writes.discard(task)
            self._writing_bytes -= size_bytes
            self._room.set()
            error = None if task.cancelled() else task.exception()
            if error is not None and not self.failure.done():
                self.failure.set_exception(error)

        task.add_done_callback(ended)
        return task


def _now_ms() -> int:
    return int(time.time() * 1000)
