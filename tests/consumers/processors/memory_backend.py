"""A stream backend in memory: the processor's contract without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from consumers.processors.contract import EventHandler, EventTooLargeError
from rft.log.coordinates import EntityPartition, Offsets
from rft.stream.actions import Received, Source
from schemas.framing import Headers


@dataclass
class MemorySource:
    """Delivers what the test gives it, and records commits."""

    commits: list[tuple[Source, Offsets]] = field(default_factory=list)
    metadata: list[Mapping[int, str]] = field(default_factory=list)
    """What was committed beside the offsets."""
    refuses_commits: bool = False
    paused: bool = False
    failure: str | None = None
    handler: EventHandler | None = None

    async def start(self, handler: EventHandler) -> None:
        self.handler = handler

    def pause(self) -> None:
        self.paused = True

    async def commit(self, entity: Source, offsets: Offsets, metadata: Mapping[int, str]) -> bool:
        if self.refuses_commits:
            return False
        self.commits.append((entity, dict(offsets)))
        self.metadata.append(dict(metadata))
        return True

    async def stop(self) -> None:
        pass


@dataclass
class Sent:
    entity: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    acknowledged: asyncio.Future[None]


@dataclass
class MemorySink:
    """Holds what was sent. Nothing is acknowledged until the test says so."""

    max_bytes: int = 2**30
    acknowledges: bool = False
    sent: list[Sent] = field(default_factory=list)

    async def send(
        self,
        entity: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[None]:
        if len(value or b"") > self.max_bytes:
            raise EventTooLargeError(f"more than {self.max_bytes} bytes")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.acknowledges:
            future.set_result(None)
        self.sent.append(Sent(entity, key, value, headers, future))
        return future

    def acknowledge(self) -> None:
        """Acknowledge everything that was sent so far."""
        for sent in self.sent:
            if not sent.acknowledged.done():
                sent.acknowledged.set_result(None)


class NoQueries:
    """Answers offset queries as a log does from which nothing is missing."""

    def __init__(self, config: object) -> None:
        pass

    async def committed(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        return {}

    async def committed_metadata(
        self, partitions: Collection[EntityPartition]
    ) -> dict[EntityPartition, tuple[int, str]]:
        return {}

    async def begins(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def close(self) -> None:
        pass


def delivered(offset: int, key: bytes | None, value: bytes | None, partition: int = 0) -> Received:
    return Received(partition, offset, key, value)
