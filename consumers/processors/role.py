"""Runs the processor as a process: starts the source, keeps time, stops cleanly."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from consumers.processors.activity import ProcessorActivity
from consumers.processors.broker_watch import BrokerWatch
from consumers.processors.contract import EventSource
from consumers.processors.faust_backend import open_faust
from consumers.processors.output import Output
from consumers.processors.registry_wait import RegistryWait
from consumers.processors.shell import Shell
from rft.config import Config
from rft.errors import BrokerError
from rft.event_loop import run_in_loop
from rft.log.access import prepare_topics
from rft.log.clients import reach_broker
from rft.log.registry import open_registry
from rft.loop_watchdog import LoopWatchdog
from rft.rewards.async_calls import run_async
from rft.rewards.functions import LoadedReward
from rft.rewards.isolation import open_scorer
from rft.stream.actions import Source
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import make_prioritizer, priority
from rft.stream.rules import Rules
from rft.telemetry.activity import role_activity

logger = logging.getLogger(__name__)

TICK_S = 0.1
COMMIT_S = 1.0
SUMMARY_S = 10.0

VERDICT_BYTES = 2048
"""What a release adds to an experience (rewards by function, verdict, ids), at most. If the processor accepts an
experience, the trainer must be able to accept it as a scored experience."""


def run(config: Config, stop: threading.Event) -> None:
    """Process experiences until ``stop`` is set. Call it in the main thread of a process of its own.

    Raises:
        ConfigError: A reward or priority function cannot be found.
        BrokerError: The broker cannot be reached, or has expelled us.
        RegistryError: The schema registry refuses us or our schemas.
        MissingRangeError: The log has deleted experiences or rewards before they were read.
    """
    registry = open_registry(config)
    rules = Rules(
        config.processor,
        open_scorer(config.processor),
        make_prioritizer(config.processor.priority),
        config.log.max_message_bytes - min(VERDICT_BYTES, config.log.max_message_bytes // 4),
        None if registry is None else registry.known,
        partitions=config.log.partitions,
        max_age_ms=int(config.log.experience_retention_hours * 3_600_000),
    )
    for line in prepare_topics(config, "processor"):
        logger.info(line)
    with tempfile.TemporaryDirectory(prefix="rft-processor-") as scratch:
        run_in_loop(_serve(config, Pipeline(rules), stop, Path(scratch)))


async def _serve(config: Config, pipeline: Pipeline, stop: threading.Event, scratch: Path) -> None:
    entities: list[Source] = ["experiences"] if pipeline.room is None else ["experiences", "rewards"]
    source, sink = open_faust(config, scratch, entities)
    shell = Shell(config, pipeline, source, Output(sink, config), RegistryWait(open_registry(config)))
    broker = BrokerWatch(config, shell.broker_went_away, shell.broker_came_back)
    watching = asyncio.create_task(broker.run())
    began = time.monotonic()
    # Functions that run in this process.
    users = [LoadedReward.call.__code__, run_async.__code__, priority.__code__]
    try:
        with LoopWatchdog(config.processor.reward_deadline_s, "processor.reward_deadline_s", users):
            await _start(source, shell, watching, stop)
            await _keep_time(config, source, pipeline, shell, watching, stop)
    finally:
        watching.cancel()
        await shell.close()
        await broker.close()
        logger.info("in all: %s", _summary(pipeline, shell, Counter(), time.monotonic() - began))


async def _start(source: EventSource, shell: Shell, watching: asyncio.Task[None], stop: threading.Event) -> None:
    """Start the source. Return early if ``stop`` is set, and raise what ``watching`` ends with."""
    starting = asyncio.create_task(source.start(shell))
    while not (starting.done() or stop.is_set()):
        await asyncio.wait([starting], timeout=TICK_S)
        if watching.done():
            watching.result()
    if starting.done():
        starting.result()


async def _keep_time(
    config: Config,
    source: EventSource,
    pipeline: Pipeline,
    shell: Shell,
    watching: asyncio.Task[None],
    stop: threading.Event,
) -> None:
    """Release at deadlines, commit and log, until ``stop`` is set or something fails."""
    committed = reported = time.monotonic()
    before: Counter[str] = Counter()
    activity = ProcessorActivity(role_activity(), pipeline, shell)
    while not stop.is_set():
        await asyncio.sleep(TICK_S)
        shell.raise_failure()
        if watching.done():
            watching.result()
        if source.failure is not None:
            await asyncio.to_thread(reach_broker, config)  # if it is away, that is the cause
            raise BrokerError(source.failure)
        shell.tick()
        activity.report()
        now = time.monotonic()
        if now - committed >= COMMIT_S:
            committed = now
            await shell.commit()
        if now - reported >= SUMMARY_S:
            shell.check_progress()
            logger.info(_summary(pipeline, shell, before, now - reported))
            reported, before = now, Counter(pipeline.counts)


def _summary(pipeline: Pipeline, shell: Shell, before: Counter[str], seconds: float) -> str:
    """Return totals since start, and the rate since ``before`` was taken, ``seconds`` ago."""
    counts = pipeline.counts
    rate = (counts["in"] - before["in"]) / seconds
    parts = [f"in {counts['in']} ({rate:.0f}/s)", f"ready {counts['ready']}"]
    parts.append(_total("filtered", counts))
    parts.append(f"duplicates {counts['duplicate']}")
    parts.append(f"late {counts['late']}")
    parts.append(_total("dead", counts).replace("dead", "dead letters", 1))
    parts.append(f"groups {counts['groups']} ({counts['expired']} at deadline, {counts['early']} early)")
    if any(key.startswith("reward:") for key in counts):
        parts.append(f"external rewards {counts['reward:in']} ({_by_cause('reward', counts, without='in')})")
    if any(key.startswith("clock:") for key in counts):
        clocks = pipeline.clocks
        parts.append(
            f"wrong clocks: {counts['clock:ahead']} events up to {clocks.ahead_ms / 1000:.0f} s ahead, "
            f"{counts['clock:behind']} up to {clocks.behind_ms / 1000:.0f} s behind"
        )
    parts.append(f"open groups {pipeline.open_groups}")
    parts.append(f"unresolved events {shell.unresolved}")
    return ", ".join(parts)


def _total(kind: str, counts: Counter[str]) -> str:
    total = f"{kind} {sum(count for key, count in counts.items() if key.startswith(f'{kind}:'))}"
    causes = _by_cause(kind, counts)
    return f"{total} ({causes})" if causes else total


def _by_cause(kind: str, counts: Counter[str], without: str = "") -> str:
    causes = {key.partition(":")[2]: count for key, count in sorted(counts.items()) if key.startswith(f"{kind}:")}
    return ", ".join(f"{cause} {count}" for cause, count in causes.items() if cause != without)
