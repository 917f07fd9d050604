"""Publishes events for coroutines on a thread of its own, so that no broker ever blocks their event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from typing import NamedTuple, Protocol

from kafka.producer.future import RecordMetadata

from rft.errors import BrokerError, EventTooLargeError, RequestError
from rft.log.writer import EventWriter
from schemas.errors import EncodeError
from schemas.events import Record
from schemas.sessions import TurnPlace

LINGER_MS = 1
"""Events of turns that end together share a batch. An answer waits for two of them, so it is short."""
JOIN_S = 5.0


class Publisher(Protocol):
    """Puts events on the log, in the order of the calls."""

    async def publish(self, entity: str, record: Record) -> object:
        """Return when the event is on the log.

        Raises RequestError for a record that is no valid event, such as one that is too large; BrokerError if the
        broker refuses it.
        """
        ...


class EventPublisher:
    """Publishes in the order of the calls."""

    def __init__(self, writer: EventWriter) -> None:
        """``writer`` is closed here."""
        self._writer = writer
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="session-writer", daemon=True)
        self._thread.start()
        self.error: BrokerError | None = None
        """Why the broker refused an event for good, if it did."""

    async def publish(self, entity: str, record: Record) -> TurnPlace:
        """Return where the event stands once it is acknowledged.

        A call that is canceled may publish the event all the same. Raises RequestError for a record that is no valid
        event, such as one that is too large; BrokerError if the broker refuses it or the publisher is closed.
        """
        loop = asyncio.get_running_loop()
        placed: asyncio.Future[TurnPlace] = loop.create_future()
        self._queue.put(_Asked(entity, record, loop, placed))
        return await placed

    def close(self, timeout_s: float = JOIN_S) -> None:
        """Send what was asked for, for at most ``timeout_s``, and disconnect."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        self._writer.close(timeout_s)

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            try:
                self._send(asked)
            # Whatever it is, the call that asked for it must not wait for ever.
            except Exception as error:
                asked.fail(error)

    def _send(self, asked: _Asked) -> None:
        try:
            sent = self._writer.send(asked.entity, asked.record)
        except (EncodeError, EventTooLargeError) as error:
            raise RequestError(f"this cannot be written to the log: {error}") from error
        sent.add_callback(asked.succeed)
        sent.add_errback(lambda error: self._refused(asked, error))

    def _refused(self, asked: _Asked, error: BaseException) -> None:
        self.error = BrokerError(f"an event of {asked.entity} was not written: {error}")
        asked.fail(self.error)


class _Asked(NamedTuple):
    entity: str
    record: Record
    loop: asyncio.AbstractEventLoop
    placed: asyncio.Future[TurnPlace]

    def succeed(self, metadata: RecordMetadata) -> None:
        def done() -> None:
            if not self.placed.done():
                self.placed.set_result(TurnPlace(metadata.partition, metadata.offset))

        self._call(done)

    def fail(self, error: Exception) -> None:
        def done() -> None:
            if not self.placed.done():
                self.placed.set_exception(error)

        self._call(done)

    def _call(self, done: object) -> None:
        # The loop is closed if the process ends meanwhile.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(done)  # type: ignore[arg-type]
