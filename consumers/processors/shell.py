"""Between Faust and the pipeline: events in, actions carried out, outcomes noted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

import faust

from consumers.processors.offsets import Offsets
from consumers.processors.output import Output
from consumers.processors.schemas_known import KnownSchemas
from rft.errors import RegistryError
from rft.log.watermark import OffsetWatermark
from rft.stream.actions import Action, DeadLetter, Publish, Received, Resolve
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

    def __init__(self, pipeline: Pipeline, offsets: Offsets, output: Output, schemas: KnownSchemas) -> None:
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

    async def consume(self, stream: faust.types.StreamT) -> None:
        """The agent: takes events one by one, in order, without waiting for what is written."""
        async for event in stream.noack().events():
            if await self._readable(event.message):
                self.receive(event.message)
            while self._writing_bytes > MAX_WRITING_BYTES or len(self._writes) > MAX_WRITES:
                self._room.clear()
                await self._room.wait()

    async def _readable(self, message: faust.types.tuples.Message) -> bool:
        """True when the event's schema is known; False when its partition was taken away while we waited."""
        if not self._offsets.owns(message.partition):
            return False
        mark = self._offsets.mark(message.partition)
        try:
            await self._schemas.wait_for(message)
        except RegistryError as error:
            if not self.failure.done():
                self.failure.set_exception(error)
            # The worker ends now. Nothing more may be taken: later events must not be done with before this one.
            await asyncio.Event().wait()
        return self._offsets.owns(message.partition) and self._offsets.mark(message.partition) is mark

    def receive(self, message: faust.types.tuples.Message) -> None:
        """Decide about one event and set its writes going."""
        if not self._offsets.owns(message.partition):
            return  # read before its partition was taken away
        self._offsets.mark(message.partition).started(message.offset)
        headers = tuple(message.headers or ())
        event = Received(message.partition, message.offset, message.key, message.value, headers)
        try:
            actions = self._pipeline.receive(event, _now_ms())
        except Exception as error:  # a fault of ours with one event must not stop the others
            logger.exception("partition %d, offset %d", message.partition, message.offset)
            actions = [DeadLetter(message.partition, message.offset, "process", error, final=True)]
        for action in actions:
            self._perform(action, message)

    def tick(self) -> None:
        """Release what has come to its deadline."""
        for action in self._pipeline.tick(_now_ms()):
            self._perform(action, None)

    async def settle(self, timeout_s: float) -> None:
        """Wait until what is being written is acknowledged, for at most ``timeout_s``."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=timeout_s)

    def _perform(self, action: Action, message: faust.types.tuples.Message | None) -> None:
        mark = self._offsets.mark(action.partition)
        if isinstance(action, Resolve):
            mark.finished(action.offset)
        elif isinstance(action, Publish):
            self._start(self._publish(action, mark), action.size_bytes)
        elif message is not None:
            task = self._start(self._bury(action, message, mark), len(message.value or b""))
            if not action.final:
                self._letters[action.partition, action.offset] = task

    async def _publish(self, action: Publish, mark: OffsetWatermark) -> None:
        letters = [self._letters.pop((action.partition, offset), None) for offset in action.resolves]
        await self._output.publish(action.group_id, action.members)
        for letter in filter(None, letters):
            await letter
        for offset in action.resolves:
            mark.finished(offset)

    async def _bury(self, action: DeadLetter, message: faust.types.tuples.Message, mark: OffsetWatermark) -> None:
        await self._output.bury(action, message)
        if action.final:
            mark.finished(action.offset)

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
