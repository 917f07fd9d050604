"""The shell around groups that wait for external rewards: their changelog, and fetching what is released."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from consumers.processors.offsets import Offsets
from consumers.processors.output import Output
from consumers.processors.recent import RecentEvents
from rft.config import Config
from rft.errors import RewardError
from rft.log.changelog import positions, read_changelog
from rft.log.places import Place, PlaceReader
from rft.log.registry import open_registry
from rft.log.retention import deleted
from rft.log.watermark import OffsetWatermark
from rft.stream.actions import DeadLetter, Received, Release, Remember, Source
from rft.stream.pipeline import Pipeline
from schemas.codec import decode
from schemas.events import Waiting

logger = logging.getLogger(__name__)

MAX_BACKLOG = 512
"""Releases under way; while there are more, nothing further is read or released."""
BATCH = 64
"""Releases whose experiences are fetched together."""
QUIET_S = 10.0
"""A partition of which nothing has come for so long has been read, whatever its end offset said."""
Starter = Callable[[Coroutine[Any, Any, None], int], asyncio.Task[None]]
Letters = Callable[[int, Iterable[int]], list[asyncio.Task[None]]]


class WaitingShell:
    """Carries out what a :class:`~rft.stream.rewarding.WaitingRoom` decides. In the event loop's thread."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        output: Output,
        offsets: Mapping[Source, Offsets],
        start: Starter,
        letters: Letters,
    ) -> None:
        """``start`` runs a write and notes its failure; ``letters`` gives the dead letters of events on their way."""
        assert pipeline.room is not None
        self._config = config
        self._pipeline = pipeline
        self._room = pipeline.room
        self._output = output
        self._offsets = offsets
        self._start = start
        self._letters = letters
        self._recent = RecentEvents(int(config.processor.buffer_mb * 1024 * 1024))
        self._reader = PlaceReader(config, "processor-waiting", "experiences")
        self._queue: list[tuple[Release, OffsetWatermark, OffsetWatermark]] = []
        self._fetching = False
        self._concluding = 0
        self._ordered: asyncio.Queue[tuple[int, str, bytes | None, asyncio.Future[None]]] = asyncio.Queue()
        self._unread: dict[tuple[str, int], int] = {}
        self._heard: dict[int, float] = {}
        self._committed: dict[int, int] = {}
        self._stall_s = config.log.session_timeout_ms / 1000
        self._ticked = self._trusted = time.monotonic()
        self._writer = asyncio.create_task(self._write_in_order())
        self.restored = asyncio.Event()
        """Set when the changelog has been read: until then nothing may be received."""
        self.restoring = False
        self.generation = 0
        """Counts the times that partitions were taken away."""

    @property
    def crowded(self) -> bool:
        """Whether to read no further for now."""
        return len(self._queue) + self._concluding > MAX_BACKLOG

    @property
    def busy(self) -> bool:
        """Whether releases are under way."""
        return bool(self._queue or self._fetching or self._concluding)

    async def restore(self, partitions: Iterable[int]) -> None:
        """Read what waits in these partitions. Raises BrokerError, or DecodeError for a changelog that is not ours."""
        numbers, began = sorted(partitions), time.monotonic()
        self.restored.clear()
        self.restoring = True
        group = f"{self._config.log.namespace}.processors"
        found = await asyncio.to_thread(
            positions, self._config, "processor-ends", group, ("experiences", "rewards"), numbers
        )
        self._unread = {place: end for place, (done, end) in found.items() if done < end}
        state = await asyncio.to_thread(read_changelog, self._config, "processor-restore", "waiting", numbers)
        registry = open_registry(self._config)
        find = None if registry is None else registry.find
        for number, held in state.items():
            groups = (decode(value, Waiting, max_bytes=2**30, writer_schemas=find) for value in held.values())
            self._room.restore(number, groups)
            self._heard[number] = time.monotonic()
            self._committed[number] = found["experiences", number][0]
        self._catch_up()
        self.restoring = False
        self._ticked = time.monotonic()
        logger.info("%d groups wait for rewards, restored in %.1f s", len(self._room), time.monotonic() - began)

    def forget(self) -> None:
        """All partitions are taken away."""
        self.generation += 1
        self._pipeline.withdraw(release for release, _, _ in self._queue)
        self._queue.clear()
        self._recent.clear()
        self._unread.clear()
        self._heard.clear()
        self._committed.clear()

    def received(self, source: str, event: Received) -> None:
        """Note an event that has just been decided about."""
        if event.partition in self._heard:
            self._heard[event.partition] = time.monotonic()
        if source == "experiences":
            self._recent.add((event.partition, event.offset), event)
        if event.offset + 1 >= self._unread.get((source, event.partition), 2**63):
            del self._unread[source, event.partition]

    def tick(self) -> None:
        """Save what has changed."""
        self._catch_up()
        now = time.monotonic()
        if now - self._ticked > self._stall_s:
            # We stood still for longer than a session: others may own our partitions by now. Let the consumer find out
            # before anything of ours replaces what they have noted.
            self._trusted = now + self._stall_s
        self._ticked = now
        if now < self._trusted:
            return
        for note in self._pipeline.save():
            self.remember(note)

    def committed(self) -> None:
        """Positions have been committed: released groups are forgotten when nothing of them can come again."""
        self._committed |= self._offsets["experiences"].committed
        for partition, offset in self._committed.items():
            for note in self._room.committed(partition, offset, int(time.time() * 1000)):
                self.remember(note)

    def remember(self, note: Remember) -> None:
        """Write a note; then its events are done with."""
        marks = self._marks(note.partition)
        written = self._write(note.partition, note.group_id, note.value)
        letters = self._letters(note.partition, note.experiences)

        async def finish() -> None:
            await asyncio.gather(written, *letters)
            _finish(marks, note.experiences, note.rewards)

        self._start(finish(), len(note.value or b""))

    def release(self, release: Release) -> None:
        """Fetch, conclude, publish."""
        self._queue.append((release, *self._marks(release.partition)))
        if not self._fetching:
            self._fetching = True
            self._start(self._fetch(), 0)

    def close(self) -> None:
        """Disconnect."""
        self._writer.cancel()
        self._reader.close()

    async def _fetch(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
                places = {(r.partition, m.offset) for r, _, _ in batch for m in r.waiting.members if m.offset >= 0}
                found = {place: event for place in places if (event := self._recent.pop(place)) is not None}
                missing = places - found.keys()
                if missing:
                    fetched = await asyncio.to_thread(self._reader.read, missing)
                    found |= {place: Received(*place, e.key, e.value, e.headers) for place, e in fetched.items()}
                    await self._check(missing - fetched.keys())
                for release, experiences, rewards in batch:
                    self._concluding += 1
                    size = sum(member.size_bytes for member in release.waiting.members)
                    self._start(self._conclude(release, (experiences, rewards), found), size)
        finally:
            self._fetching = False

    async def _check(self, gone: set[Place]) -> None:
        if not gone:
            return
        partition, offset = min(gone)
        first = await asyncio.to_thread(self._reader.first_offset, partition)
        error = await asyncio.to_thread(
            deleted,
            self._config,
            "experiences",
            partition,
            offset,
            max(first, offset + 1),
            "go on without experiences that waited (processor.external.skip_deleted = true)",
            needed=f"{len(gone)} experiences that waited for rewards were there",
        )
        if not self._config.processor.external.skip_deleted:
            raise error
        logger.warning("going on without what is missing, as processor.external.skip_deleted says: %s", error)

    async def _conclude(
        self,
        release: Release,
        marks: tuple[OffsetWatermark, OffsetWatermark],
        found: dict[Place, Received],
    ) -> None:
        try:
            waiting, partition = release.waiting, release.partition
            events = {m.offset: found[partition, m.offset] for m in waiting.members if (partition, m.offset) in found}
            publish = self._pipeline.conclude(release, events, int(time.time() * 1000))
            await self._output.publish(publish.group_id, publish.members)
            required = ", ".join(self._config.processor.external.required)
            for offset in release.letters:
                if offset in events:
                    error = RewardError(f"not all of its rewards came in time; required are {required}")
                    letter = DeadLetter(partition, offset, "reward", error, final=False)
                    self._pipeline.counts["dead:reward"] += 1
                    await self._output.bury(letter, events[offset])
            letters = self._letters(partition, release.experiences)
            await asyncio.gather(self._write(partition, waiting.group_id, release.marker), *letters)
            self._room.marked(partition, waiting)
            _finish(marks, release.experiences, release.rewards)
        finally:
            self._concluding -= 1

    def _write(self, partition: int, group_id: str, value: bytes | None) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ordered.put_nowait((partition, group_id, value, done))
        return done

    async def _write_in_order(self) -> None:
        """One after the other: an older note of a group must not come to stand after a newer one."""
        while True:
            partition, group_id, value, done = await self._ordered.get()
            try:
                acknowledged = await self._output.remember(partition, group_id, value)
            except Exception as error:  # told to whoever waits for it, who ends the worker
                done.set_exception(error)
                continue
            acknowledged.add_done_callback(partial(_pass_on, done))

    def _catch_up(self) -> None:
        now = time.monotonic()
        behind = {partition for _, partition in self._unread}
        for partition, heard in list(self._heard.items()):
            if partition not in behind or now - heard > QUIET_S:
                self._room.caught_up(partition)
                del self._heard[partition]
                for source in ("experiences", "rewards"):
                    self._unread.pop((source, partition), None)

    def _marks(self, partition: int) -> tuple[OffsetWatermark, OffsetWatermark]:
        return self._offsets["experiences"].mark(partition), self._offsets["rewards"].mark(partition)


def _finish(marks: tuple[OffsetWatermark, OffsetWatermark], experiences: Iterable[int], rewards: Iterable[int]) -> None:
    for mark, offsets in zip(marks, (experiences, rewards), strict=True):
        for offset in offsets:
            mark.finished(offset)


def _pass_on(done: asyncio.Future[None], sent: asyncio.Future[Any]) -> None:
    if done.done():
        return
    error = asyncio.CancelledError() if sent.cancelled() else sent.exception()
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
