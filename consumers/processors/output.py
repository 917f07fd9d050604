"""Writes released groups, waiting groups and dead letters. Each method says when it returns."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence

from consumers.processors.contract import EventSink, EventTooLargeError
from rft.config import Config
from rft.log.cloud_events import cloud_event_headers
from rft.log.dead_letters import VALUE_OMITTED, dead_letter_headers
from rft.log.registry import writer_ids
from rft.log.topics import topic_name
from rft.stream.actions import DeadLetter, Received
from schemas.codec import encode
from schemas.events import ScoredExperience
from schemas.framing import frame


class Output:
    """Writes the topics that a processor writes: ``ready``, ``dlq`` and ``waiting``."""

    def __init__(self, sink: EventSink, config: Config) -> None:
        self._sink = sink
        self._config = config
        ids = writer_ids(config)
        self._ready_schema_id = ids.get("ready")
        self._waiting_schema_id = ids.get("waiting")
        self._producer_name = f"processor/{socket.gethostname()}:{os.getpid()}"

    async def publish(self, group_id: str, samples: Sequence[ScoredExperience]) -> None:
        """Write all samples of a group to ``ready``, and return when they are acknowledged."""
        now_ms = int(time.time() * 1000)
        sent = [
            await self._sink.send(
                "ready",
                group_id.encode(),
                encode(sample, self._ready_schema_id),
                headers=cloud_event_headers(sample, self._producer_name, now_ms),
            )
            for sample in samples
        ]
        await asyncio.gather(*sent)

    async def save_waiting(self, partition: int, group_id: str, value: bytes | None) -> asyncio.Future[None]:
        """Write the state of a waiting group, or None to delete it. Return a future of its acknowledgement."""
        if value is not None and self._waiting_schema_id is not None:
            value = frame("Waiting", self._waiting_schema_id) + value[len(frame("Waiting", None)) :]
        return await self._sink.send("waiting", group_id.encode(), value, partition=partition)

    async def publish_dead_letter(self, letter: DeadLetter, event: Received) -> None:
        """Write an event unchanged to ``dlq``, with its cause and origin in further headers.

        Return when it is acknowledged. If the headers make the event too large, its value is omitted.
        """
        headers = dead_letter_headers(
            event.headers,
            stage=letter.stage,
            error=letter.error,
            topic=topic_name(self._config, letter.source),
            partition=letter.partition,
            offset=letter.offset,
            now_ms=int(time.time() * 1000),
        )
        try:
            await (await self._sink.send("dlq", event.key, event.value, headers=headers))
        except EventTooLargeError:
            headers.append((VALUE_OMITTED, str(event.size_bytes).encode()))
            await (await self._sink.send("dlq", event.key, None, headers=headers))
