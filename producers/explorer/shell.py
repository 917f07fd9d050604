"""The explorer as a role: connects the task feed, the weights follower, the rollouts and the writer.

Threads: the feed's, the weights follower's, the policy's and the producer's own; the event loop of the rollouts is
the main thread's. They meet in three places only: ``call_soon_threadsafe`` into the loop, the feed's queue of
acknowledged experiences, and the policy, which is thread-safe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
import time
from typing import Any

from producers.explorer.backlog import Delivery
from producers.explorer.feed import TaskFeed
from producers.explorer.follower import WeightsFollower
from producers.explorer.pool import RolloutPool
from rft.config import Config
from rft.errors import BrokerError, DecodeError, EncodeError, RolloutError
from rft.log.dead_letters import dead_letter_headers, earlier_failure
from rft.log.events import EventWriter
from rft.policy.base import Policy
from rft.policy.opening import open_policy
from rft.weights.checkpoint import TRANSPORT as CHECKPOINT
from rft.weights.choosing import COLLECTIVE
from rft.workflows.base import resolve
from rft.workflows.experiences import failed
from schemas.events import Experience, Member

TICK_S = 0.1
HEARTBEAT_S = 2.0
FLUSH_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 7.0

log = logging.getLogger("rft")


def run(config: Config, stop: threading.Event) -> None:
    """Roll out tasks until ``stop`` is set. Unfinished tasks are left to the other explorers.

    Raises BrokerError, PolicyError, WeightsError or ConfigError when the explorer cannot do its work, MissingRangeError
    when tasks were deleted before anyone had finished them.
    """
    member_id = f"explorer-{platform.node()}-{os.getpid()}"
    resolve(config.rollout.workflow)  # what is wrong in the configuration shows before a model is loaded
    writer = EventWriter(config, member_id)
    try:
        policy = open_policy(config)
        try:
            asyncio.run(explore(config, member_id, policy, writer, stop))
        finally:
            policy.close()
    finally:
        writer.close(timeout_s=1.0)


async def explore(config: Config, member_id: str, policy: Policy, writer: EventWriter, stop: threading.Event) -> None:
    """The explorer's life, with a policy and a writer that the caller closes."""
    explorer = Explorer(config, member_id, policy, writer)
    explorer.start()
    try:
        while not stop.is_set():
            explorer.tick()
            await asyncio.sleep(TICK_S)
    finally:
        await explorer.close()


class Explorer:
    """The parts of one explorer, connected."""

    def __init__(self, config: Config, member_id: str, policy: Policy, writer: EventWriter) -> None:
        """Connect. Raises BrokerError, or ConfigError for a workflow that does not exist."""
        self._loop = asyncio.get_running_loop()
        self._policy = policy
        self._config = config
        self._member_id = member_id
        self._writer = writer
        self._pool = RolloutPool(
            config.rollout,
            policy,
            resolve(config.rollout.workflow),
            source=member_id,
            model=config.trainer.model_key,
            publish=self._publish,
        )
        self._feed = TaskFeed(
            config,
            member_id,
            deliver=self._deliver,
            saturated=lambda: self._pool.saturated,
            refuse=self._refuse,
        )
        self._follower = WeightsFollower(config, member_id, policy, changed=self._changed)
        self._heartbeat_at = 0.0
        self._unpublished: BaseException | None = None
        """Why the broker did not take an experience."""

    def start(self) -> None:
        """Follow the weights, join the group, take tasks."""
        self._follower.start()
        self._feed.start()

    def tick(self) -> None:
        """What is due from time to time. Raises what ended one of the parts."""
        for error in (self._policy.error, self._feed.error, self._follower.error, self._pool.error):
            if error:
                raise error
        if self._unpublished:
            raise BrokerError(f"experiences were not written: {self._unpublished}")
        if time.monotonic() >= self._heartbeat_at:
            self._heartbeat_at = time.monotonic() + HEARTBEAT_S
            self._announce("here")

    async def close(self) -> None:
        """Abandon what runs, commit what is finished, leave the group and say so."""
        self._feed.stop_taking()
        await self._pool.abandon()
        self._announce("left")
        try:
            self._writer.flush(FLUSH_TIMEOUT_S)
        finally:
            self._feed.close(JOIN_TIMEOUT_S)
            self._follower.close(JOIN_TIMEOUT_S)
        stats = self._pool.stats
        log.info("%d rollouts, %d of them failed, %d tokens", stats["rollouts"], stats["failed"], stats["tokens"])

    def _deliver(self, deliveries: list[Delivery]) -> None:
        self._loop.call_soon_threadsafe(lambda: self._pool.add(deliveries))

    def _changed(self, version: int) -> None:
        def tell() -> None:
            self._pool.holds(version)
            # At once: the trainer waits to hear who holds what.
            self._announce("here")

        self._loop.call_soon_threadsafe(tell)

    def _publish(self, delivery: Delivery, experience: Experience) -> None:
        try:
            future = self._writer.send("experiences", experience)
        except (EncodeError, BrokerError) as error:
            # A trajectory that cannot be an event fails its rollout. If it is the broker, this raises once more.
            future = self._writer.send("experiences", self._unwritable(delivery, experience, error))
        future.add_callback(lambda _: self._feed.published(delivery.partition, delivery.offset))
        future.add_errback(self._not_published)

    def _unwritable(self, delivery: Delivery, experience: Experience, error: Exception) -> Experience:
        log.warning("rollout %s cannot be published: %s", experience.experience_id, error)
        return failed(
            delivery.task,
            experience.sample,
            RolloutError(f"its trajectory cannot be published: {error}"),
            source=self._member_id,
            model=experience.model,
            now_ms=experience.created_at,
            duration_ms=experience.duration_ms,
        )

    def _not_published(self, error: BaseException) -> None:
        self._unpublished = error

    def _refuse(self, message: Any, error: DecodeError) -> None:
        """A message on ``tasks`` that is no task goes to the dead letters."""
        log.warning("tasks, partition %d, offset %d: %s", message.partition, message.offset, error)
        now_ms = int(time.time() * 1000)
        attempt, first_failure_ms = earlier_failure(message.headers) or (0, now_ms)
        headers = dead_letter_headers(
            message.headers,
            stage="explorer",
            error=error,
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            attempt=attempt + 1,
            first_failure_ms=first_failure_ms,
        )
        self._writer.send_bytes("dlq", message.value, key=message.key, headers=headers).get(FLUSH_TIMEOUT_S)

    def _announce(self, state: str) -> None:
        follower = self._follower
        self._writer.send(
            "members",
            Member(
                member_id=self._member_id,
                role="explorer",
                engine=self._config.policy.engine,
                state=state,
                version=follower.held.version,
                sha256=follower.held.sha256,
                address=f"{platform.node()}:{os.getpid()}",
                heartbeat_at=int(time.time() * 1000),
                stats={**self._pool.stats, **follower.stats},
                transport=COLLECTIVE if follower.receivers else CHECKPOINT,
                backend=self._config.weights.backend if follower.receivers else "",
                receivers=len(follower.receivers),
                epoch=follower.epoch,
                host=platform.node(),
            ),
        )
