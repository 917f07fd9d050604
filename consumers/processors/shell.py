"""Connects the stream backend and the pipeline: takes events, carries out actions, commits what is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Iterable
from typing import Any

from consumers.processors.commit_monitor import CommitMonitor
from consumers.processors.contract import EventSource
from consumers.processors.dead_letter_notes import note_dead_letter
from consumers.processors.divided_groups import DividedGroups, decode_offsets
from consumers.processors.missed_events import MissedEventDetector
from consumers.processors.offset_queries import OffsetQueries
from consumers.processors.offset_tracker import OffsetTracker
from consumers.processors.output import Output
from consumers.processors.registry_wait import RegistryWait
from consumers.processors.waiting_shell import WaitingShell
from rft.config import Config
from rft.errors import BrokerError, MissingRangeError, RegistryError
from rft.log.coordinates import EntityPartition
from rft.log.watermark import OffsetWatermark
from rft.retry import Deadline
from rft.stream.actions import Action, DeadLetter, Publish, Received, Release, Resolve, SaveWaiting, Source
from rft.stream.pipeline import Pipeline
from rft.telemetry.activity import role_activity
from schemas.framing import SchemaId

logger = logging.getLogger(__name__)

MAX_WRITING_BYTES = 64 * 1024 * 1024
MAX_WRITES = 512
"""Reading waits while more than this is being written and not yet acknowledged."""
SLOW_S = 0.05
"""After a decision that took longer, the rest of the loop gets a turn."""
SETTLE_S = 5.0
"""How long a stop or a rebalance waits for acknowledgements. What is acknowledged later is written twice and counted
once."""


class Shell:
    """Handles the events of a source (:class:`~consumers.processors.contract.EventHandler`).

    Runs in the event loop's thread, one event after the other. It waits there for the reward functions, each of which
    has a deadline. The source sends heartbeats without the event loop, so a slow function delays events but loses no
    partition.
    """

    def __init__(
        self, config: Config, pipeline: Pipeline, source: EventSource, output: Output, schemas: RegistryWait
    ) -> None:
        self._pipeline = pipeline
        self._source = source
        self._output = output
        self._schemas = schemas
        self._trackers: dict[Source, OffsetTracker] = {"experiences": OffsetTracker("experiences")}
        self._writes: set[asyncio.Task[None]] = set()
        self._writing_bytes = 0
        self._write_ended = asyncio.Event()
        self._letters: dict[tuple[int, int], asyncio.Task[None]] = {}
        """Writes of dead letters that are not final, by partition and offset: their groups must wait for them."""
        self._failure: BaseException | None = None
        self._missed = MissedEventDetector(config, self._fail)
        self._commits = CommitMonitor(config, self._fail)
        self._config = config
        self._resuming: asyncio.Task[None] | None = None
        """Asks which events the former owners of the assigned partitions have finished."""
        self._broker_away = False
        self._handling: set[Source] = set()
        """Topics of which an event is being handled."""
        self._waiting: WaitingShell | None = None
        """Only when external rewards are required."""
        if pipeline.room is not None:
            self._trackers["rewards"] = OffsetTracker("rewards")
            self._waiting = WaitingShell(
                config, pipeline, output, self._trackers, self._start_write, self._take_dead_letters
            )

    async def assigned(self, partitions: Collection[EntityPartition]) -> None:
        """Take over these partitions, and no others."""
        numbers = {
            entity: sorted(at.partition for at in partitions if at.entity == entity) for entity in self._trackers
        }
        if self._waiting is not None:
            await self._waiting.restore(numbers["experiences"])
        for entity, tracker in self._trackers.items():
            tracker.assign(numbers[entity])
        self._stop_resuming()
        self._resuming = asyncio.create_task(self._resume(numbers["experiences"]))
        self._missed.assigned(partitions)
        logger.info("partitions %s", numbers["experiences"] or "none")

    async def revoked(self) -> None:
        """Finish and commit what is being written, then give up all partitions."""
        await self.settle()
        await self.commit()
        self._stop_resuming()
        self._pipeline.forget(self._trackers["experiences"].partitions)
        if self._waiting is not None:
            self._waiting.forget()
        self._missed.assigned([])
        for tracker in self._trackers.values():
            tracker.assign([])

    async def received(self, entity: Source, event: Received) -> None:
        """Decide about one event and start its writes. Wait for acknowledgements only if too many are outstanding."""
        self._handling.add(entity)
        if await self._is_readable(event, entity):
            began = time.monotonic()
            self._decide(event, entity)
            if time.monotonic() - began > SLOW_S:
                # Events may follow without a pause. What else the loop has to do must come to its turn between them.
                await asyncio.sleep(0)
        while self._overloaded():
            self._write_ended.clear()
            await self._write_ended.wait()
        self._handling.discard(entity)

    def check_progress(self) -> None:
        """Start looking for events that were not delivered, and for committed offsets that stand still."""
        self._missed.check(idle=not self._handling)
        trackers = self._trackers.values()
        self._commits.check(
            {at: offset for tracker in trackers for at, offset in tracker.committed_positions.items()},
            {at: offset for tracker in trackers for at, offset in tracker.uncommitted_positions.items()},
            {at: offset for tracker in trackers for at, offset in tracker.unfinished_positions.items()},
        )

    def raise_failure(self) -> None:
        """Raise what the worker must end with, if anything: its unfinished events come again after a restart."""
        if self._failure is None:
            return
        if isinstance(self._failure, RegistryError | BrokerError | MissingRangeError):
            raise self._failure
        raise BrokerError(f"an outcome could not be written: {self._failure}") from self._failure

    def tick(self) -> None:
        """Release the groups whose deadline has passed."""
        if self._waiting is not None and self._waiting.overloaded:
            return
        if not self._broker_away:
            for action in self._pipeline.tick(_now_ms()):
                self._perform(action, None)
        if self._waiting is not None:
            self._waiting.tick()

    def broker_went_away(self) -> None:
        """Let no deadline pass until ``broker_came_back``: what groups wait for cannot come."""
        self._broker_away = True

    def broker_came_back(self) -> None:
        """Give open groups their time again: what they wait for may only be published now."""
        self._broker_away = False
        self._pipeline.groups.restart_deadlines(_now_ms())
        if self._waiting is not None:
            self._waiting.pause_deadlines()

    async def settle(self) -> None:
        """Wait until what is being written is acknowledged, for at most ``SETTLE_S``."""
        deadline = Deadline(SETTLE_S)
        if self._waiting is not None:
            self._waiting.tick()
        while self._writes and not deadline.passed:
            # A write that ends may start another one.
            await asyncio.wait(self._writes, timeout=deadline.remaining())

    async def commit(self) -> None:
        """Commit what is done, except after an event that may have been missed."""
        for tracker in self._trackers.values():
            await tracker.commit(self._source, self._missed.commit_limit)
        if self._waiting is not None:
            self._waiting.committed()

    async def close(self) -> None:
        """Stop reading, finish and commit what is being written, leave the group, disconnect.

        Open groups are not published: they go to the next owner of their partitions.
        """
        self._source.pause()
        await self.settle()
        if self._source.failure is None:
            await self.commit()
        self._stop_resuming()
        await self._missed.close()
        await self._commits.close()
        await self._source.stop()
        if self._waiting is not None:
            self._waiting.close()

    @property
    def unresolved(self) -> int:
        """Number of events received whose outcome is not yet acknowledged."""
        return sum(tracker.unresolved for tracker in self._trackers.values())

    @property
    def writes(self) -> int:
        """Number of writes that are not yet acknowledged."""
        return len(self._writes)

    @property
    def handling(self) -> Collection[str]:
        """Topics of which an event is being handled."""
        return self._handling

    @property
    def partitions(self) -> Collection[int]:
        """Partitions that are assigned."""
        return self._trackers["experiences"].partitions

    @property
    def awaited_schema(self) -> SchemaId | None:
        """The schema for which the registry does not answer; None if nothing waits for it."""
        return self._schemas.awaited

    async def _resume(self, partitions: Collection[int]) -> None:
        """Read which events of these partitions are finished although they come again."""
        tracker, queries = self._trackers["experiences"], OffsetQueries(self._config)
        asked = [EntityPartition("experiences", partition) for partition in partitions]
        try:
            for at, (offset, metadata) in (await queries.committed_metadata(asked)).items():
                tracker.resume(at.partition, decode_offsets(offset, metadata))
        except Exception as error:  # without the answer, released groups would be taken for open ones
            self._fail(error)
        finally:
            await queries.close()

    def _stop_resuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()

    def _overloaded(self) -> bool:
        if self._waiting is not None and self._waiting.overloaded:
            return True
        return self._writing_bytes > MAX_WRITING_BYTES or len(self._writes) > MAX_WRITES

    async def _is_readable(self, event: Received, entity: Source) -> bool:
        """Wait until the event's schema is known. Return False if its partition was revoked meanwhile."""
        tracker = self._trackers[entity]
        if self._waiting is not None and not await self._waiting.wait_until_restored():
            return False
        if not tracker.owns(event.partition):
            return False
        watermark = tracker.watermark(event.partition)
        if self._resuming is not None and not self._resuming.done():
            await asyncio.wait([self._resuming])
        try:
            await self._schemas.wait_for(event)
        except RegistryError as error:
            self._fail(error)
            # The worker ends now. Take nothing more: later events must not be finished before this one.
            await asyncio.Event().wait()
        return tracker.owns(event.partition) and tracker.watermark(event.partition) is watermark

    def _decide(self, event: Received, entity: Source) -> None:
        if not self._trackers[entity].owns(event.partition):
            return  # read before its partition was revoked
        self._trackers[entity].watermark(event.partition).started(event.offset)
        self._missed.received(EntityPartition(entity, event.partition), event.offset)
        decide = self._pipeline.receive if entity == "experiences" else self._pipeline.receive_reward
        if self._trackers[entity].was_finished(event.partition, event.offset):
            decide = self._pipeline.skip
        role_activity().works("handles %s, partition %d, offset %d", entity, event.partition, event.offset)
        try:
            actions = decide(event, _now_ms())
        except Exception as error:  # a fault of ours with one event must not stop the others
            logger.exception("%s, partition %d, offset %d", entity, event.partition, event.offset)
            actions = [DeadLetter(event.partition, event.offset, "process", error, final=True, source=entity)]
        if self._waiting is not None:
            self._waiting.received(entity, event)
        for action in actions:
            self._perform(action, event)

    def _perform(self, action: Action, event: Received | None) -> None:
        if isinstance(action, SaveWaiting | Release):
            assert self._waiting is not None
            if isinstance(action, Release):
                self._waiting.release(action)
            else:
                self._waiting.save(action)
            return
        entity: Source = "experiences" if isinstance(action, Publish) else action.source
        watermark = self._trackers[entity].watermark(action.partition)
        if isinstance(action, Resolve):
            watermark.finished(action.offset)
            if entity == "experiences":  # the metadata of rewards is never read: `waiting` knows their groups
                self._trackers[entity].divided(action.partition).repeated(action.offset)
        elif isinstance(action, Publish):
            divided = self._trackers[entity].divided(action.partition)
            self._start_write(self._publish(action, watermark, divided), action.size_bytes)
        elif event is not None:
            note_dead_letter(action, event, self._pipeline.counts["dead:score"])
            task = self._start_write(self._publish_dead_letter(action, event, watermark), event.size_bytes)
            if not action.final:
                self._letters[action.partition, action.offset] = task

    async def _publish(self, action: Publish, watermark: OffsetWatermark, divided: DividedGroups) -> None:
        letters = self._take_dead_letters(action.partition, action.resolves)
        await self._output.publish(action.group_id, action.samples)
        for letter in letters:
            await letter
        for offset in action.resolves:
            watermark.finished(offset)
        divided.released(action.resolves)

    async def _publish_dead_letter(self, letter: DeadLetter, event: Received, watermark: OffsetWatermark) -> None:
        await self._output.publish_dead_letter(letter, event)
        if letter.final:
            watermark.finished(letter.offset)

    def _take_dead_letters(self, partition: int, offsets: Iterable[int]) -> list[asyncio.Task[None]]:
        letters = (self._letters.pop((partition, offset), None) for offset in offsets)
        return [letter for letter in letters if letter is not None]

    def _start_write(self, write: Coroutine[Any, Any, None], size_bytes: int) -> asyncio.Task[None]:
        task = asyncio.create_task(write)
        self._writes.add(task)
        self._writing_bytes += size_bytes

        def ended(task: asyncio.Task[None]) -> None:
            self._writes.discard(task)
            self._writing_bytes -= size_bytes
            self._write_ended.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(error)

        task.add_done_callback(ended)
        return task

    def _fail(self, error: BaseException) -> None:
        """Keep the first failure. The worker ends with it: see ``raise_failure``."""
        if self._failure is None:
            self._failure = error


def _now_ms() -> int:
    return int(time.time() * 1000)
