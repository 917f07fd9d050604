"""Defines what the processor needs from a stream backend: a source of events and a sink for them.

One file implements each backend: :mod:`consumers.processors.faust_backend` is the one in use. All methods run in the
event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Protocol

from rft.log.coordinates import EntityPartition, Offsets
from rft.stream.actions import Received, Source
from schemas.framing import Headers


class EventTooLargeError(Exception):
    """The client or the broker refuses an event because of its size."""


class EventHandler(Protocol):
    """What a source calls. An exception of any method ends the source."""

    async def assigned(self, partitions: Collection[EntityPartition]) -> None:
        """Take over these partitions; the worker owns no others.

        The source delivers each partition from its committed offset, or from its beginning if nothing is committed.
        Events may come before this has returned.
        """

    async def revoked(self) -> None:
        """Give up all partitions. Every rebalance revokes all of them and assigns the kept ones again.

        The source waits for this to return before it lets others read the partitions.
        """

    async def received(self, entity: Source, event: Received) -> None:
        """Take one event. The next event of ``entity`` is delivered after this has returned (backpressure).

        A rebalance does not wait for this: the event may be of a partition that was revoked meanwhile.
        """


class EventSource(Protocol):
    """Delivers the events of some topics, each partition in the order of its offsets.

    - A source commits nothing by itself. After a restart or a rebalance it delivers from the committed offsets again.
    - Heartbeats to the broker do not depend on the event loop: a slow handler delays events but loses no partition.
    - A source may skip events by mistake. :mod:`consumers.processors.missed_events` detects that.
    """

    async def start(self, handler: EventHandler) -> None:
        """Join the consumer group and deliver to ``handler``."""

    def pause(self) -> None:
        """Deliver nothing more until the end. Partitions stay assigned."""

    async def commit(self, entity: Source, offsets: Offsets, metadata: Mapping[int, str]) -> bool:
        """Commit the next offset to read of each partition, with the text that the broker keeps beside it.

        Return False, and log why, if the broker refuses or does not answer in time: the caller tries again later. If
        the broker refuses only the metadata, the offsets are committed without it.
        """

    @property
    def failure(self) -> str | None:
        """Why the source has ended by itself; None while it runs."""

    async def stop(self) -> None:
        """Leave the group and disconnect, within a bounded time."""


class EventSink(Protocol):
    """Writes events. Acknowledged means: all in-sync replicas have it."""

    async def send(
        self,
        entity: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[None]:
        """Hand over one event and return a future of its acknowledgement. Waits while the client's buffer is full.

        Without ``partition`` the key decides. Events of one key that are handed over one after the other are written
        in that order. This or the future raises EventTooLargeError.
        """
