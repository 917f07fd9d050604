"""The processor as a process: start Faust, keep time, stop cleanly."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import faust

from consumers.processors.app import make_app, source_topic
from consumers.processors.offsets import Offsets
from consumers.processors.output import Output
from consumers.processors.schemas_known import KnownSchemas
from consumers.processors.shell import Shell
from consumers.processors.summary import summary_line
from rft.config import Config
from rft.errors import BrokerError, MissingRangeError, RegistryError
from rft.log.registry import open_registry
from rft.log.topics import ensure_topics, topic_name
from rft.rewards import make_scorer
from rft.stream.actions import Source
from rft.stream.pipeline import Pipeline, Rules
from rft.stream.prioritize import make_prioritizer

logger = logging.getLogger(__name__)

TICK_S = 0.1
COMMIT_S = 1.0
SUMMARY_S = 10.0
SETTLE_S = 5.0
"""How long a stop or a rebalance waits for acknowledgements; what comes later is written twice and counted once."""
STOP_S = 8.0
"""How long Faust may take to leave its group and close its connections."""

VERDICT_BYTES = 2048
"""Room for what a release adds to an experience (rewards by function, verdict, ids): what we accept, the trainer must
be able to accept as a scored experience."""


def run(config: Config, stop: threading.Event) -> None:
    """Process experiences until ``stop`` is set. Call it in the main thread of a process of its own.

    Raises:
        ConfigError: A reward or priority function cannot be found.
        BrokerError: The broker cannot be reached, or gave up on us.
        RegistryError: The schema registry refuses us or our schemas.
        MissingRangeError: The log has deleted experiences or rewards before they were read.
    """
    registry = open_registry(config)
    rules = Rules(
        config.processor,
        make_scorer(config.processor.rewards),
        make_prioritizer(config.processor.priority),
        config.log.max_message_bytes - min(VERDICT_BYTES, config.log.max_message_bytes // 4),
        None if registry is None else registry.known,
    )
    for line in ensure_topics(config):
        logger.info(line)
    with tempfile.TemporaryDirectory(prefix="rft-processor-") as scratch:
        asyncio.run(_serve(config, Pipeline(rules), stop, Path(scratch)))


async def _serve(config: Config, pipeline: Pipeline, stop: threading.Event, scratch: Path) -> None:
    app = make_app(config, scratch)
    offsets: dict[Source, Offsets] = {"experiences": Offsets(topic_name(config, "experiences"))}
    if pipeline.room is not None:
        offsets["rewards"] = Offsets(topic_name(config, "rewards"))
    shell = Shell(config, pipeline, offsets, Output(app, config), KnownSchemas(open_registry(config)))
    app.agent(source_topic(app, config, "experiences"), name="experiences", concurrency=1)(shell.consume)
    if pipeline.room is not None:
        app.agent(source_topic(app, config, "rewards"), name="rewards", concurrency=1)(shell.consume_rewards)

    async def revoked(_app: faust.App, _partitions: set[faust.types.TP], **_: Any) -> None:
        # Every rebalance takes all partitions away and reads the kept ones again from where they were committed.
        await shell.settle(SETTLE_S)
        await shell.commit(app)
        pipeline.forget(offsets["experiences"].partitions)
        if shell.waiting is not None:
            shell.waiting.forget()
        shell.gaps.assigned([])
        for one in offsets.values():
            one.reset([])

    async def assigned(_app: faust.App, partitions: set[faust.types.TP], **_: Any) -> None:
        if shell.waiting is not None:
            await shell.waiting.restore(offsets["experiences"].assigned(partitions))
        for one in offsets.values():
            one.reset(one.assigned(partitions))
        shell.gaps.assigned([(source, number) for source, one in offsets.items() for number in one.partitions])
        if shell.waiting is not None:
            shell.waiting.restored.set()
        logger.info("partitions %s", offsets["experiences"].partitions or "none")

    app.on_partitions_revoked.connect(revoked)
    app.on_partitions_assigned.connect(assigned)
    await app.start()
    began = time.monotonic()
    try:
        await _keep_time(app, pipeline, shell, stop)
    finally:
        await _close(app, shell)
        seconds = time.monotonic() - began
        logger.info(
            "in all: %s", summary_line(pipeline.counts, Counter(), seconds, pipeline.open_groups, shell.unresolved)
        )


async def _keep_time(app: faust.App, pipeline: Pipeline, shell: Shell, stop: threading.Event) -> None:
    """Deadlines, commits and the summary line, until told to stop or something breaks."""
    committed = reported = time.monotonic()
    before: Counter[str] = Counter()
    while not stop.is_set():
        await asyncio.sleep(TICK_S)
        if shell.failure.done():
            error = shell.failure.exception()
            told = isinstance(error, RegistryError | BrokerError | MissingRangeError)
            raise error if told and error else BrokerError(f"an outcome could not be written: {error}")
        if app.should_stop:
            raise BrokerError(f"the Faust worker ended: {app.crash_reason or 'unknown cause, see the lines above'}")
        shell.tick()
        now = time.monotonic()
        if now - committed >= COMMIT_S:
            committed = now
            await shell.commit(app)
        if now - reported >= SUMMARY_S:
            shell.look()
            logger.info(summary_line(pipeline.counts, before, now - reported, pipeline.open_groups, shell.unresolved))
            reported, before = now, Counter(pipeline.counts)


async def _close(app: faust.App, shell: Shell) -> None:
    """Stop reading, finish what is being written, commit it, leave the group. Open groups go to whoever is next."""
    app.flow_control.suspend()
    await shell.settle(SETTLE_S)
    if not app.should_stop:
        await shell.commit(app)
    await shell.gaps.close()
    try:
        await asyncio.wait_for(app.stop(), STOP_S)
    except TimeoutError:
        logger.warning("Faust did not stop within %g s", STOP_S)
    if shell.waiting is not None:
        shell.waiting.close()
