"""Runs the explorer as a role: connects the task feed, the weights follower, the rollouts and the writer.

The feed, the weights follower, the policy and the producer have threads of their own. The event loop of the rollouts
runs on the main thread. They share three things only: ``call_soon_threadsafe`` into the loop, the feed's queue of
acknowledged experiences, and the policy, which is thread-safe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
import time
from contextlib import suppress

from producers.explorer.activity import ExplorerActivity
from producers.explorer.agent_rollouts import find_agent, open_agents
from producers.explorer.backlog import Delivery
from producers.explorer.feed import TaskFeed
from producers.explorer.follower import WeightsFollower
from producers.explorer.generation import open_generation_server
from producers.explorer.pool import RolloutPool
from rft.config import Config
from rft.errors import BrokerError, DecodeError, EncodeError, RolloutError
from rft.event_loop import run_in_loop
from rft.log.dead_letters import Stage
from rft.log.events import Event
from rft.log.writer import EventWriter
from rft.loop_watchdog import LoopWatchdog
from rft.policy import open_policy
from rft.policy.base import Policy
from rft.telemetry.activity import role_activity
from rft.weights.transport import CHECKPOINT, COLLECTIVE
from rft.workflows.base import Workflow, check_workflow, close_workflow, open_workflow
from rft.workflows.experiences import make_failed_experience
from rft.workflows.running import run_workflow
from schemas.events import Experience, Member

TICK_S = 0.1
HEARTBEAT_S = 2.0
FLUSH_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 7.0

log = logging.getLogger("rft")


def run(config: Config, stop: threading.Event) -> None:
    """Roll out tasks until ``stop`` is set. Unfinished tasks are left to the other explorers.

    Raises BrokerError, PolicyError, WeightsError or ConfigError when the explorer cannot work, MissingRangeError when
    tasks were deleted before an explorer had finished them.
    """
    member_id = f"explorer-{platform.node()}-{os.getpid()}"
    # An unknown workflow or agent is reported before the model is loaded.
    check_workflow(config.rollout)
    find_agent(config.rollout)
    writer = EventWriter(config, member_id)
    try:
        turns = ("turns",) if config.gateway.log_turns == "all" else ()
        writer.prepare("experiences", "members", "dlq", *turns)
        role_activity().works("loads the model")
        policy = open_policy(config)
        try:
            run_in_loop(explore(config, member_id, policy, writer, stop))
        finally:
            policy.close()
    finally:
        writer.close(timeout_s=1.0)


async def explore(config: Config, member_id: str, policy: Policy, writer: EventWriter, stop: threading.Event) -> None:
    """Run an explorer until ``stop`` is set, with a policy and a writer that the caller closes."""
    explorer = Explorer(config, member_id, policy, writer)
    explorer.start()
    try:
        with LoopWatchdog(config.rollout.blocking_s, "rollout.blocking_s", [run_workflow.__code__]):
            while not stop.is_set():
                explorer.tick()
                await asyncio.sleep(TICK_S)
    finally:
        await explorer.close()


class Explorer:
    """The parts of one explorer, connected."""

    def __init__(self, config: Config, member_id: str, policy: Policy, writer: EventWriter) -> None:
        """Connect. Raises BrokerError, or ConfigError for a workflow or an agent that does not exist."""
        self._loop = asyncio.get_running_loop()
        self._policy = policy
        self._config = config
        self._member_id = member_id
        self._writer = writer
        self._agents = open_agents(config, policy, writer)
        self._workflow: Workflow = self._agents or open_workflow(config.rollout)
        self._pool = RolloutPool(
            config.rollout,
            policy,
            self._workflow,
            source=member_id,
            model=config.trainer.model_key,
            publish=self._publish,
            cancelled=lambda delivery: self._feed.cancelled(delivery.partition, delivery.offset),
        )
        self._feed = TaskFeed(
            config,
            member_id,
            deliver=self._deliver,
            saturated=lambda: self._pool.saturated or writer.full,
            reject=self._publish_dead_letter,
        )
        self._follower = WeightsFollower(config, member_id, policy, changed=self._changed)
        self._generation = open_generation_server(config, policy, ready=lambda: self._follower.held.version >= 0)
        self._activity = ExplorerActivity(
            role_activity(), self._pool, self._feed, self._follower, writer, self._generation
        )
        self._heartbeat_at = 0.0
        self._unpublished: BaseException | None = None
        """The error with which the broker rejected an experience."""

    def start(self) -> None:
        """Follow the weights, join the group, take tasks."""
        self._follower.start()
        self._feed.start()
        if self._generation:
            self._generation.start()

    def tick(self) -> None:
        """Raise the error that ended one of the parts, if one did; send a heartbeat if it is due."""
        parts = (self._policy, self._feed, self._follower, self._pool, self._agents, self._generation)
        for error in (part.error for part in parts if part):
            if error:
                raise error
        if self._unpublished:
            raise BrokerError(f"experiences were not written: {self._unpublished}")
        self._activity.report()
        if time.monotonic() >= self._heartbeat_at:
            self._heartbeat_at = time.monotonic() + HEARTBEAT_S
            self._announce("here")

    async def close(self) -> None:
        """Abandon the running rollouts, commit the finished tasks, leave the group and announce it."""
        self._feed.stop_taking()
        await self._pool.abandon()
        await close_workflow(self._workflow)
        if self._agents:
            self._agents.close()
        self._announce("left")
        if self._generation:
            self._generation.close()
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
        def update() -> None:
            self._pool.set_version(version)
            # At once: the trainer waits for the members' versions.
            self._announce("here")

        self._loop.call_soon_threadsafe(update)

    def _publish(self, delivery: Delivery, rows: list[Experience]) -> None:
        """Publish the rows of one rollout in order. It is published when the last one is acknowledged.

        All rows go to one partition, where the broker acknowledges them in order.
        """
        last = rows[-1]
        for experience in rows:
            try:
                future = self._writer.send("experiences", experience, wait=False)
            except (EncodeError, BrokerError) as error:
                # A row that cannot be encoded fails its rollout. If the cause is the broker, this raises again.
                last = self._failed_experience(delivery, experience, error)
                future = self._writer.send("experiences", last, wait=False)
                future.add_errback(self._not_published)
                break
            future.add_errback(self._not_published)
        future.add_callback(lambda _: self._published(delivery, last))

    def _published(self, delivery: Delivery, experience: Experience) -> None:
        """Note that the broker has acknowledged a rollout. Runs on the producer's thread."""
        self._feed.published(delivery.partition, delivery.offset)
        if delivery.task.spare:
            good = experience.finish_reason != "error"
            # The loop is closed when the last acknowledgements come after the explorer's end.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(lambda: self._pool.acknowledged(delivery, good=good))

    def _failed_experience(self, delivery: Delivery, experience: Experience, error: Exception) -> Experience:
        failure = RolloutError(f"its trajectory cannot be published: {error}")
        self._pool.count_failure(experience.experience_id, failure)
        return make_failed_experience(
            delivery.task,
            experience.sample,
            failure,
            source=self._member_id,
            model=experience.model,
            now_ms=experience.created_at,
            duration_ms=experience.duration_ms,
        )

    def _not_published(self, error: BaseException) -> None:
        self._unpublished = error

    def _publish_dead_letter(self, event: Event, stage: Stage, error: DecodeError) -> None:
        """Publish an event of ``tasks`` that is not a task as a dead letter, and return when it is acknowledged."""
        self._writer.wait_for(self._writer.publish_dead_letter(event, stage, error))

    def _announce(self, state: str) -> None:
        follower, generation = self._follower, self._generation
        served = {"serving": float(generation.under_way)} if generation else {}
        if self._writer.full and state == "here":
            return  # the broker is away, and this would be out of date when it is back
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
                stats={**self._pool.stats, **follower.stats, **served},
                transport=COLLECTIVE if follower.receivers else CHECKPOINT,
                backend=self._config.weights.backend if follower.receivers else "",
                receivers=len(follower.receivers),
                epoch=follower.epoch,
                host=platform.node(),
                generate_url=generation.url if generation else "",
                generate_proof=generation.proof if generation else "",
            ),
            wait=False,
        )
