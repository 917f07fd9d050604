"""Runs the rewarder as a role: connects the feed of experiences, the judge, the pool and the writer.

The feed and the producer have threads of their own. The event loop of the judgements runs on the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import threading
import time
from collections.abc import Sequence

from producers.rewarder.cache import JudgementCache
from producers.rewarder.feed import ExperienceFeed
from producers.rewarder.intake import GroupIntake, Intake, Received, SampleIntake, Unit
from producers.rewarder.known_rewards import KnownRewards
from producers.rewarder.pool import Outcomes, RewardPool
from rft.config import Config
from rft.errors import BrokerError, RewardError
from rft.event_loop import run_in_loop
from rft.log.records import DeadLetterRejects
from rft.log.writer import EventWriter
from rft.rewards.judgement import Judge
from rft.rewards.judges import open_judge
from rft.telemetry.activity import role_activity
from schemas.events import Reward

TICK_S = 0.1
LOG_EVERY_S = 30.0
FLUSH_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 7.0
SILENT_S = 30.0
"""A feed whose loop has not turned for so long does something that takes long, or hangs."""
FOLDER = "rewarders"

log = logging.getLogger("rft")


def run(config: Config, stop: threading.Event) -> None:
    """Reward experiences until ``stop`` is set. What is not rewarded then is left to the next process.

    Raises BrokerError, RewardError or ConfigError when the rewarder cannot work, MissingRangeError when experiences
    were deleted before they were rewarded.
    """
    config = config.of_rewarder(None)
    ((name, rewarder),) = config.rewarders.items()
    role_activity().works("opens %s", rewarder.function)
    # Before the broker: a wrong function or option is reported at once.
    judge = open_judge(name, rewarder)
    writer = EventWriter(config, f"rewarder-{name}-{platform.node()}-{os.getpid()}")
    try:
        writer.prepare("rewards", "dlq")
        run_in_loop(_reward(config, name, judge, writer, stop))
    finally:
        writer.close(timeout_s=1.0)


async def _reward(config: Config, name: str, judge: Judge, writer: EventWriter, stop: threading.Event) -> None:
    role = RewarderRole(config, name, judge, writer)
    role.start()
    try:
        while not stop.is_set():
            role.tick()
            await asyncio.sleep(TICK_S)
    finally:
        await role.close()


class RewarderRole:
    """The parts of one rewarder, connected."""

    def __init__(self, config: Config, name: str, judge: Judge, writer: EventWriter) -> None:
        """Connect. Raises BrokerError, or ConfigError for a cache that cannot be kept."""
        self._loop = asyncio.get_running_loop()
        self._judge = judge
        self._writer = writer
        settings = config.rewarders[name]
        client_id = f"rewarder-{name}"
        grouped = settings.scope == "group"
        self._units = "groups" if grouped else "samples"
        self._intake: Intake = GroupIntake(config.processor.group_deadline_s) if grouped else SampleIntake()
        self._known = KnownRewards(name, settings.revision)
        folder = settings.cache_folder or config.run.path / FOLDER / name
        self._cache = JudgementCache(folder, settings) if settings.caches else None
        self._dead_letters = DeadLetterRejects(config, client_id, writer)
        self._rejecting = asyncio.Lock()
        self._unpublished: BaseException | None = None
        self._activity = role_activity()
        self._seen: tuple[int, ...] = ()
        self._logged_at = time.monotonic()
        self._pool = RewardPool(
            name,
            settings,
            judge,
            self._cache,
            self._known,
            Outcomes(lambda partition: self._feed.owns(partition), self._publish, self._reject, self._abandon),
            required=name in config.processor.external.required,
        )
        self._feed = ExperienceFeed(
            config,
            name,
            client_id,
            self._known,
            writer,
            deliver=self._deliver,
            saturated=lambda: self._pool.saturated or writer.full,
        )

    def start(self) -> None:
        """Join the group and take experiences."""
        self._feed.start()

    def tick(self) -> None:
        """Raise the error that ended one of the parts, if one did; reward the groups whose deadline has passed."""
        for error in (self._feed.error, self._pool.error):
            if error:
                raise error
        if self._unpublished:
            raise BrokerError(f"rewards were not written: {self._unpublished}")
        if due := self._intake.due(time.monotonic()):
            self._pool.add(due)
        self._report()

    async def close(self) -> None:
        """Abandon what is judged now, commit what is finished, leave the group."""
        self._feed.stop_taking()
        await self._pool.abandon()
        with contextlib.suppress(RewardError):
            await self._judge.close()
        try:
            self._writer.flush(FLUSH_TIMEOUT_S)
        finally:
            self._feed.close(JOIN_TIMEOUT_S)
            if self._cache:
                self._cache.close()
        log.info("%s", self.summary)

    @property
    def summary(self) -> str:
        """What was done and spent since the start, in a line."""
        return "; ".join(part for part in (str(self._pool.counts), str(self._judge.usage)) if part)

    def _deliver(self, received: list[Received]) -> None:
        def add() -> None:
            now = time.monotonic()
            self._pool.add([unit for one in received for unit in self._intake.add(one, now)])

        self._loop.call_soon_threadsafe(add)

    def _publish(self, unit: Unit, rewards: Sequence[Reward]) -> None:
        """Publish the rewards of a unit in order. Its events are finished when the last one is acknowledged.

        All go to one partition, where the broker acknowledges them in order.
        """
        positions = unit.positions
        for reward in rewards:
            future = self._writer.send("rewards", reward, wait=False)
            future.add_errback(self._not_published)
        if rewards:
            future.add_callback(lambda _: self._feed.finished_all(positions))
        else:
            self._feed.finished_all(positions)

    def _not_published(self, error: BaseException) -> None:
        self._unpublished = error

    async def _reject(self, received: Received, error: RewardError) -> None:
        """Publish a dead letter, once, also after a restart."""
        async with self._rejecting:
            await asyncio.to_thread(self._dead_letters.reject, received.event, "reward", error)

    def _abandon(self, unit: Unit) -> None:
        for partition, offset in unit.positions:
            self._feed.abandoned(partition, offset)

    def _report(self) -> None:
        pool, feed, counts = self._pool, self._feed, self._pool.counts
        seen = (counts.rewarded, counts.failed, counts.abstained, counts.retries, feed.skipped, pool.open)
        if seen != self._seen:
            if self._seen:
                self._activity.progressed()
            self._seen = seen
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.info("%s", self.summary)
        works, waits = self._activity.works, self._activity.waits
        if feed.pulse.age_s > SILENT_S:
            works("takes experiences; its consumer has not returned from its last call")
        elif pool.service_failure:
            waits("its service: %s (%s)", pool.service_failure, counts)
        elif self._writer.full:
            works("publishes rewards; it judges no more meanwhile")
        elif pool.open:
            works("judges %d %s (%s)", pool.open, self._units, counts)
        elif feed.look.lags:
            works("takes experiences that are on the log and do not come")
        elif self._intake.waiting:
            waits("the rest of %d groups (%s)", self._intake.waiting, counts)
        else:
            waits("experiences (%s)", counts)
