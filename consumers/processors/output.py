"""Writing released groups and dead letters, through Faust's producer. Returns when they are acknowledged."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import faust
from aiokafka.errors import MessageSizeTooLargeError
from faust.exceptions import ProducerSendError

from rft.config import Config
from rft.log.dead_letters import VALUE_OMITTED, dead_letter_headers, earlier_failure
from rft.log.headers import cloud_event_headers
from rft.log.registry import writer_ids
from rft.log.topics import topic_name
from rft.stream.actions import DeadLetter, Received
from schemas.codec import encode
from schemas.events import ScoredExperience
from schemas.framing import frame


class Output:
    """The topics that a processor writes to."""

    def __init__(self, app: faust.App, config: Config) -> None:
        self._app = app
        self._read = {source: topic_name(config, source) for source in ("experiences", "rewards")}
        self._ready = topic_name(config, "ready")
        self._dead = topic_name(config, "dlq")
        self._waiting = topic_name(config, "waiting")
        ids = writer_ids(config)
        self._schema_id = ids.get("ready")
        self._waiting_id = ids.get("waiting")
        self._source = f"processor/{socket.gethostname()}:{os.getpid()}"

    async def publish(self, group_id: str, members: Sequence[ScoredExperience]) -> None:
        """Write all members of a group to ``ready``."""
        now = int(time.time() * 1000)
        key = group_id.encode()
        sent = [
            await self._send(
                self._ready, key, encode(member, self._schema_id), cloud_event_headers(member, self._source, now)
            )
            for member in members
        ]
        await asyncio.gather(*sent)

    async def remember(self, partition: int, group_id: str, value: bytes | None) -> asyncio.Future[Any]:
        """Write the state of a waiting group, or None to forget it; a future of its acknowledgement."""
        if value is not None and self._waiting_id is not None:
            value = frame("Waiting", self._waiting_id) + value[len(frame("Waiting", None)) :]
        return await self._app.producer.send(self._waiting, group_id.encode(), value, partition, None, [])

    async def bury(self, letter: DeadLetter, message: faust.types.tuples.Message | Received) -> None:
        """Write an event as it came to ``dlq``, with its cause and origin in further headers."""
        attempt, first_failure_ms = earlier_failure(message.headers) or (0, int(time.time() * 1000))
        headers = dead_letter_headers(
            message.headers,
            stage=letter.stage,
            error=letter.error,
            topic=self._read[letter.source],
            partition=letter.partition,
            offset=letter.offset,
            attempt=attempt + 1,
            first_failure_ms=first_failure_ms,
        )
        try:
            await (await self._send(self._dead, message.key, message.value, headers))
        except (MessageSizeTooLargeError, ProducerSendError) as error:
            if not _too_large(error):
                raise
            headers.append((VALUE_OMITTED, str(len(message.value or b"")).encode()))
            await (await self._send(self._dead, message.key, None, headers))

    async def _send(self, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> asyncio.Future[Any]:
        # aiokafka refuses an event with neither key nor value, which others' clients may write.
        value = b"" if key is None and value is None else value
        return await self._app.producer.send(topic, key, value, None, None, headers)


def _too_large(error: BaseException) -> bool:
    """Faust wraps what the client refuses; what the broker refuses comes as it is."""
    return isinstance(error, MessageSizeTooLargeError) or isinstance(error.__cause__, MessageSizeTooLargeError)
