"""Implements the processor's event source and sink with a Faust app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OffsetMetadataTooLargeError,
)
from faust.exceptions import ProducerSendError

from consumers.processors.contract import EventHandler, EventTooLargeError
from consumers.processors.faust_backend.app import make_app, source_topic
from consumers.processors.faust_backend.private import commit, send_nothing, warn_if_untested
from rft.config import Config
from rft.errors import OutageError
from rft.log.coordinates import EntityPartition, Offsets
from rft.log.topics import topic_name
from rft.stream.actions import Received, Source
from schemas.framing import Headers

logger = logging.getLogger(__name__)

COMMIT_TIMEOUT_S = 3.0
RETRY_S = 0.5
STOP_S = 8.0
"""How long Faust may take to leave its group and close its connections."""


def open_faust(config: Config, data_path: Path, entities: list[Source]) -> tuple[FaustSource, FaustSink]:
    """Return a source of ``entities`` and a sink, both on one app. Raises BrokerError if the broker is unreachable."""
    warn_if_untested()
    app = make_app(config, data_path)
    return FaustSource(app, config, entities), FaustSink(app, config)


class FaustSource:
    """Reads each topic with a Faust agent at ``concurrency=1``."""

    def __init__(self, app: faust.App, config: Config, entities: list[Source]) -> None:
        self._app = app
        self._config = config
        self._entities: dict[str, Source] = {topic_name(config, entity): entity for entity in entities}

    async def start(self, handler: EventHandler) -> None:
        """Join the consumer group and deliver to ``handler``."""
        for entity in self._entities.values():
            topic = source_topic(self._app, self._config, entity)
            self._app.agent(topic, name=entity, concurrency=1)(_agent(entity, handler))

        async def revoked(_app: faust.App, _partitions: set[faust.types.TP], **_: Any) -> None:
            await handler.revoked()

        async def assigned(_app: faust.App, partitions: set[faust.types.TP], **_: Any) -> None:
            ours = [tp for tp in partitions if tp.topic in self._entities]
            await handler.assigned([EntityPartition(self._entities[tp.topic], tp.partition) for tp in ours])

        self._app.on_partitions_revoked.connect(revoked)
        self._app.on_partitions_assigned.connect(assigned)
        try:
            await self._app.start()
        except KafkaError as error:
            if _may_pass(error):
                raise OutageError(f"the processor could not start: {error}") from error
            raise

    def pause(self) -> None:
        """Deliver nothing more until the end."""
        self._app.flow_control.suspend()

    async def commit(self, entity: Source, offsets: Offsets, metadata: Mapping[int, str]) -> bool:
        """Commit the next offset to read of each partition. Return False if the broker refuses or is silent."""
        topic = topic_name(self._config, entity)
        try:
            await asyncio.wait_for(commit(self._app, topic, offsets, metadata), COMMIT_TIMEOUT_S)
        except OffsetMetadataTooLargeError:
            if not any(metadata.values()):
                raise
            logger.warning(
                "%s: the broker takes less metadata than Kafka's default (offset.metadata.max.bytes = 4096). If this "
                "processor ends, the rest of a released group may hold the committed offset of its successor for "
                "processor.group_deadline_s. Raise the broker's setting",
                topic,
            )
            return await self.commit(entity, offsets, {})
        except (KafkaError, TimeoutError) as error:
            logger.warning("offsets not committed, will try again: %s", str(error) or type(error).__name__)
            return False
        return True

    @property
    def failure(self) -> str | None:
        """Why the Faust worker has ended by itself; None while it runs."""
        if not self._app.should_stop:
            return None
        return f"the Faust worker ended: {self._app.crash_reason or 'unknown cause, see the lines above'}"

    async def stop(self) -> None:
        """Leave the group and disconnect."""
        stopping = asyncio.create_task(self._app.stop())
        # Not wait_for: that waits for good if what it cancels does not end.
        _, unfinished = await asyncio.wait([stopping], timeout=STOP_S)
        if unfinished:
            logger.warning("Faust did not stop within %g s", STOP_S)
            stopping.cancel()


class FaustSink:
    """Writes with the app's producer."""

    def __init__(self, app: faust.App, config: Config) -> None:
        self._app = app
        self._config = config

    async def send(
        self,
        entity: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[None]:
        """Hand over one event and return a future of its acknowledgement."""
        topic = topic_name(self._config, entity)
        while True:
            try:
                if key is None and value is None:
                    sent = await send_nothing(self._app, topic, partition, headers)
                else:
                    sent = await self._app.producer.send(topic, key, value, partition, None, list(headers))
                break
            except (MessageSizeTooLargeError, ProducerSendError) as error:
                if _too_large(error):
                    raise EventTooLargeError(str(error)) from error
                if not _was_not_taken(error):
                    raise
                logger.warning("the broker takes no events of %s now; the processor waits for it: %s", topic, error)
            await asyncio.sleep(RETRY_S)
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.add_done_callback(partial(_acknowledge, acknowledged))
        return acknowledged


def _agent(entity: Source, handler: EventHandler) -> Any:
    async def consume(stream: faust.types.StreamT) -> None:
        async for event in stream.noack().events():
            message = event.message
            headers, published_ms = tuple(message.headers or ()), int((message.timestamp or 0) * 1000)
            received = Received(
                message.partition, message.offset, message.key, message.value, headers, timestamp_ms=published_ms
            )
            await handler.received(entity, received)

    return consume


def _acknowledge(acknowledged: asyncio.Future[None], sent: asyncio.Future[Any]) -> None:
    if acknowledged.done():
        return
    if sent.cancelled():
        acknowledged.cancel()
    elif (error := sent.exception()) is None:
        acknowledged.set_result(None)
    else:
        acknowledged.set_exception(EventTooLargeError(str(error)) if _too_large(error) else error)


def _was_not_taken(error: BaseException) -> bool:
    """Return whether the client did not accept an event because the broker is away and the buffer full."""
    return error.__cause__ is not None and _may_pass(error.__cause__)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, KafkaTimeoutError) or (isinstance(error, KafkaError) and bool(error.retriable))


def _too_large(error: BaseException) -> bool:
    """Faust wraps what the client refuses; what the broker refuses comes as it is."""
    return isinstance(error, MessageSizeTooLargeError) or isinstance(error.__cause__, MessageSizeTooLargeError)
