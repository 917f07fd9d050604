"""Does the I/O for groups that wait for external rewards: writes their changelog, and fetches and publishes released
groups."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from consumers.processors.changelog_writer import ChangelogWriter
from consumers.processors.offset_tracker import OffsetTracker
from consumers.processors.output import Output
from consumers.processors.recent_events import RecentEvents
from rft.config import Config
from rft.errors import DecodeError, RewardError
from rft.log.changelog import read_changelog_events
from rft.log.coordinates import EntityPartition, LogPosition
from rft.log.dead_letters import Stage
from rft.log.events import Event
from rft.log.exact_reader import ExactReader
from rft.log.offset_queries import committed_offsets, end_offsets
from rft.log.records import publish_rejects
from rft.log.retention import retention_error
from rft.log.topics import consumer_group
from rft.log.watermark import OffsetWatermark
from rft.stream.actions import DeadLetter, Received, Release, SaveWaiting, Source
from rft.stream.pipeline import Pipeline
from rft.stream.waiting_changelog import WaitingChangelog
from schemas.codec import encode

logger = logging.getLogger(__name__)

MAX_BACKLOG = 512
"""Releases that are not published yet; while there are more, nothing further is read or released."""
BATCH = 64
"""Releases whose experiences are fetched together."""
SOURCES: tuple[Source, ...] = ("experiences", "rewards")
IDLE_S = 10.0
"""A restored partition that is silent for so long counts as read to its end, even if its end offset is higher."""
UNKNOWN = 2**63
"""Stands for the end offset of a partition while the broker is asked for it."""
StartWrite = Callable[[Coroutine[Any, Any, None], int], asyncio.Task[None]]
Rejected = tuple[Event, Stage, DecodeError]
TakeDeadLetters = Callable[[int, Iterable[int]], list[asyncio.Task[None]]]


class Watermarks(NamedTuple):
    """Holds one partition's watermarks in both topics, as they were when an action was decided."""

    experiences: OffsetWatermark
    rewards: OffsetWatermark

    def finish(self, experiences: Iterable[int], rewards: Iterable[int]) -> None:
        for offset in experiences:
            self.experiences.finished(offset)
        for offset in rewards:
            self.rewards.finished(offset)


class WaitingShell:
    """Carries out what a :class:`~rft.stream.waiting_room.WaitingRoom` decides. Runs in the event loop's thread."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        output: Output,
        trackers: Mapping[Source, OffsetTracker],
        start_write: StartWrite,
        take_dead_letters: TakeDeadLetters,
    ) -> None:
        """Connect the shell to the rest of the processor.

        Args:
            start_write: Runs a write of a size in bytes, and reports its failure.
            take_dead_letters: Returns the writes of dead letters that are not final, by partition and offsets.
        """
        assert pipeline.room is not None
        self._config = config
        self._counts = pipeline.counts
        self._room = pipeline.room
        self._clocks = pipeline.clocks
        self._output = output
        self._trackers = trackers
        self._start_write = start_write
        self._take_dead_letters = take_dead_letters
        self._recent = RecentEvents(int(config.processor.buffer_mb * 1024 * 1024))
        self._reader = ExactReader(config, "processor-waiting", "experiences")
        self._releases: list[tuple[Release, Watermarks]] = []
        self._fetching = False
        self._publishing = 0
        self._changelog = ChangelogWriter(output)
        self._unread_ends: dict[EntityPartition, int] = {}
        """Ends at restore of the partitions that have not been read that far."""
        self._last_event_s: dict[int, float] = {}
        """When (monotonic seconds) something came of each partition whose deadlines are still paused."""
        self._committed: dict[int, int] = {}
        self._stall_s = config.log.session_timeout_ms / 1000
        self._last_tick_s = self._owned_from_s = time.monotonic()
        self._restored = asyncio.Event()
        """Cleared while the changelog is read."""
        self._restored.set()
        self._revocations = 0

    @property
    def overloaded(self) -> bool:
        """True while nothing further is to be read."""
        return len(self._releases) + self._publishing > MAX_BACKLOG

    async def restore(self, partitions: Iterable[int]) -> None:
        """Read the waiting groups of these partitions.

        Events of the changelog that no processor writes become dead letters. Raises BrokerError.
        """
        numbers, began = sorted(partitions), time.monotonic()
        self._restored.clear()
        consumers = consumer_group(self._config, "processors")
        read = [EntityPartition(source, number) for source in SOURCES for number in numbers]
        committed = await asyncio.to_thread(committed_offsets, self._config, "processor-restore", consumers, read)
        ends = await asyncio.to_thread(end_offsets, self._config, "processor-restore", read)
        self._unread_ends = {at: end for at, end in ends.items() if committed.get(at, 0) < end}
        for number in numbers:
            for source in SOURCES:
                self._clocks.assigned(source, number, ends[EntityPartition(source, number)])
        changelog, rejected = await asyncio.to_thread(self._read_changelog, numbers)
        if rejected:
            publish = asyncio.to_thread(publish_rejects, self._config, "processor-restore", rejected)
            self._start_write(publish, 0)
        for number in numbers:
            self._room.restore(number, changelog.groups(number))
            self._last_event_s[number] = time.monotonic()
            self._committed[number] = committed.get(EntityPartition("experiences", number), 0)
        for number, group in changelog.overwritten():
            # Otherwise compaction would leave a stranger's event as the group's newest state.
            saved = self._changelog.write(number, group.group_id, encode(group))
            self._start_write(asyncio.wait_for(saved, None), 0)
        self._resume_deadlines()
        self._restored.set()
        self._last_tick_s = time.monotonic()
        logger.info("%d groups wait for rewards, restored in %.1f s", len(self._room), time.monotonic() - began)

    def _read_changelog(self, partitions: Collection[int]) -> tuple[WaitingChangelog, list[Rejected]]:
        """Return the groups in the changelog, and its events that no processor writes. Raises BrokerError."""
        rejected: list[Rejected] = []
        changelog = WaitingChangelog(lambda *rejection: rejected.append(rejection))

        def begin() -> Callable[[Event], None]:
            rejected.clear()
            changelog.clear()
            return changelog.feed

        read_changelog_events(self._config, "processor-restore", "waiting", partitions, begin)
        return changelog, rejected

    async def wait_until_restored(self) -> bool:
        """Wait while the changelog is read: new events may come before the groups that they belong to are restored.

        Return False if partitions were revoked meanwhile.
        """
        revocations = self._revocations
        await self._restored.wait()
        return revocations == self._revocations

    def forget(self) -> None:
        """Forget everything: all partitions are revoked."""
        self._revocations += 1
        self._room.withdraw(release for release, _ in self._releases)
        self._releases.clear()
        self._recent.clear()
        self._unread_ends.clear()
        self._last_event_s.clear()
        self._committed.clear()

    def pause_deadlines(self) -> None:
        """Let no deadline count until everything has been read that is on the log by now: the broker was away."""
        numbers = self._trackers["experiences"].partitions
        for number in numbers:
            self._room.pause_deadlines(number)
            self._last_event_s[number] = time.monotonic()
            self._unread_ends |= {EntityPartition(source, number): UNKNOWN for source in SOURCES}
        self._start_write(self._learn_ends(list(self._unread_ends)), 0)

    async def _learn_ends(self, partitions: Collection[EntityPartition]) -> None:
        revocations = self._revocations
        ends = await asyncio.to_thread(end_offsets, self._config, "processor-restore", partitions)
        if revocations == self._revocations:
            self._unread_ends |= {at: end for at, end in ends.items() if at in self._unread_ends}

    def received(self, source: Source, event: Received) -> None:
        """Note an event that the pipeline has just decided about."""
        if event.partition in self._last_event_s:
            self._last_event_s[event.partition] = time.monotonic()
        if source == "experiences":
            self._recent.add(LogPosition(event.partition, event.offset), event)
        at = EntityPartition(source, event.partition)
        if event.offset + 1 >= self._unread_ends.get(at, UNKNOWN):
            del self._unread_ends[at]

    def tick(self) -> None:
        """Write what has changed to the changelog."""
        self._resume_deadlines()
        now = time.monotonic()
        if now - self._last_tick_s > self._stall_s:
            # This process stood still for longer than a session, so others may own our partitions by now. Wait until
            # the consumer has found out: our state must not replace theirs.
            self._owned_from_s = now + self._stall_s
        self._last_tick_s = now
        if now < self._owned_from_s:
            return
        for action in self._room.flush():
            self.save(action)

    def committed(self) -> None:
        """Delete released groups from the changelog if, with the offsets now committed, they cannot come again."""
        self._committed |= self._trackers["experiences"].committed
        for number, offset in self._committed.items():
            for action in self._room.committed(number, offset, _now_ms()):
                self.save(action)

    def save(self, action: SaveWaiting) -> None:
        """Write a group's state. When it is acknowledged, the events in it are done."""
        watermarks = self._watermarks(action.partition)
        acknowledged = self._changelog.write(action.partition, action.group_id, action.value)
        letters = self._take_dead_letters(action.partition, action.experiences)

        async def finish() -> None:
            await asyncio.gather(acknowledged, *letters)
            watermarks.finish(action.experiences, action.rewards)

        self._start_write(finish(), len(action.value or b""))

    def release(self, release: Release) -> None:
        """Fetch the group's experiences, publish it and mark it as released."""
        self._releases.append((release, self._watermarks(release.partition)))
        if not self._fetching:
            self._fetching = True
            self._start_write(self._fetch(), 0)

    def close(self) -> None:
        """Disconnect."""
        self._changelog.close()
        self._reader.close()

    async def _fetch(self) -> None:
        try:
            while self._releases:
                batch, self._releases = self._releases[:BATCH], self._releases[BATCH:]
                wanted = {
                    LogPosition(release.partition, sample.offset)
                    for release, _ in batch
                    for sample in release.waiting.members
                    if sample.offset >= 0
                }
                events = {at: event for at in wanted if (event := self._recent.pop(at)) is not None}
                uncached = wanted - events.keys()
                if uncached:
                    fetched = await asyncio.to_thread(self._reader.read, uncached)
                    events |= {at: Received(*at, e.key, e.value, e.headers) for at, e in fetched.items()}
                    await self._check_deleted(uncached - fetched.keys())
                for release, watermarks in batch:
                    self._publishing += 1
                    size = sum(sample.size_bytes for sample in release.waiting.members)
                    self._start_write(self._publish(release, watermarks, events), size)
        finally:
            self._fetching = False

    async def _check_deleted(self, missing: set[LogPosition]) -> None:
        """Raise MissingRangeError for deleted experiences, unless the operator has chosen to go on without them."""
        if not missing:
            return
        number, offset = min(missing)
        begin = await asyncio.to_thread(self._reader.begin_offset, number)
        error = await asyncio.to_thread(
            retention_error,
            self._config,
            "experiences",
            number,
            offset,
            max(begin, offset + 1),
            "go on without experiences that waited (processor.external.skip_deleted = true)",
            needed=f"{len(missing)} experiences that waited for rewards were there",
        )
        if not self._config.processor.external.skip_deleted:
            raise error
        logger.warning("going on without what is missing, as processor.external.skip_deleted says: %s", error)

    async def _publish(self, release: Release, watermarks: Watermarks, fetched: Mapping[LogPosition, Received]) -> None:
        try:
            group, number = release.waiting, release.partition
            offsets = [sample.offset for sample in group.members]
            events = {offset: fetched[at] for offset in offsets if (at := LogPosition(number, offset)) in fetched}
            publish = self._room.publish(release, events, _now_ms())
            await self._output.publish(publish.group_id, publish.samples)
            required = ", ".join(self._config.processor.external.required)
            for offset in release.dead_letters:
                if offset in events:
                    error = RewardError(f"not all of its rewards came in time; required are {required}")
                    letter = DeadLetter(number, offset, "reward", error, final=False)
                    self._counts["dead:reward"] += 1
                    await self._output.publish_dead_letter(letter, events[offset])
            letters = self._take_dead_letters(number, release.experiences)
            await asyncio.gather(self._changelog.write(number, group.group_id, release.marker), *letters)
            self._room.release_saved(number, group)
            watermarks.finish(release.experiences, release.rewards)
        finally:
            self._publishing -= 1

    def _resume_deadlines(self) -> None:
        """Let deadlines count in the partitions that have been read to where they ended at restore."""
        now = time.monotonic()
        unread = {at.partition for at in self._unread_ends}
        for number, last_event_s in list(self._last_event_s.items()):
            if number not in unread or now - last_event_s > IDLE_S:
                self._room.resume_deadlines(number)
                del self._last_event_s[number]
                for source in ("experiences", "rewards"):
                    self._unread_ends.pop(EntityPartition(source, number), None)

    def _watermarks(self, number: int) -> Watermarks:
        return Watermarks(self._trackers["experiences"].watermark(number), self._trackers["rewards"].watermark(number))


def _now_ms() -> int:
    return int(time.time() * 1000)
