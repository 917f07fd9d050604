"""Runs the trainer: recover, then read, step, record, announce, until the last step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from threading import Event as StopEvent

from consumers.trainer.announcer import Announcer
from consumers.trainer.claim import Claim
from consumers.trainer.ready_reader import ReadyReader, client_id
from consumers.trainer.recovery import Redo, claim_accepted_log
from consumers.trainer.sample_fetcher import SampleFetcher
from consumers.trainer.sample_source import SampleSource, group_priority
from consumers.trainer.step_record import staleness_metrics, training_step
from rft.config import Config
from rft.errors import CheckpointError
from rft.log.topic_identity import check_same_log, read_topic_ids
from rft.log.writer import EventWriter
from rft.model_files.atomic_folder import remove_leftovers
from rft.telemetry.activity import role_activity
from rft.training.buffer import Drop
from rft.training.checkpoint import checkpoints_root, newest_checkpoint
from rft.training.learner import Learner
from rft.training.logprob_gap import LogprobGapMonitor
from rft.training.reuse_pool import ReusePool
from rft.weights.opening import open_transport
from rft.weights.version_folders import versions_root
from rft.weights.wire_dtype import WireDtype
from schemas.events import TrainingStep

LOG_EVERY_S = 5.0
LOGGED = ("reward_mean", "loss", "grad_norm", "staleness_max", "idle_s", "step_s")

logger = logging.getLogger(__name__)


def run(config: Config, stop: StopEvent) -> None:
    """Train until ``trainer.steps`` are done or ``stop`` is set, then leave a checkpoint.

    Killed at any moment, the next call goes on as if nothing had happened.

    Raises:
        BrokerError, PolicyError, WeightsError, CheckpointError, EngineError, SamplerGapError: See their docstrings.
        MissingRangeError: The log no longer holds what is to be read or redone.
        FencedError: A later start of the same trainer has taken over.
        OtherLogError: The topics are not those that the checkpoint was made with.
    """
    key = config.trainer.model_key
    for folder in (checkpoints_root(config.run.path, key), versions_root(config.run.path, key)):
        remove_leftovers(folder)
    with ExitStack() as stack:
        writer = stack.enter_context(closing(EventWriter(config, client_id(config), linger_ms=0)))
        checkpoint = newest_checkpoint(config.run.path, key)
        topic_ids = read_topic_ids(config)
        if checkpoint:
            check_same_log(config, checkpoint.state.topic_ids, topic_ids, checkpoint.folder)
        progress = checkpoint.log_progress() if checkpoint else None
        reader = stack.enter_context(closing(ReadyReader(config, progress)))
        role_activity().works("loads the model")
        learner = stack.enter_context(closing(Learner(config, checkpoint, reader.progress, topic_ids=topic_ids)))
        fetcher = stack.enter_context(closing(SampleFetcher(config, learner.sample_filter)))
        pool = ReusePool(config.buffer, group_priority(config.buffer), config.run.seed)
        claim = Claim(config, writer)
        wire_dtype = WireDtype(config.weights.wire_dtype)
        if checkpoint:
            logger.info("resuming from %s", checkpoint.folder)

        log = claim_accepted_log(config, learner, claim, wire_dtype)
        transport = open_transport(
            config, writer, learner.companions, log.newest, client_id=client_id(config), stop=stop
        )
        stack.push(lambda error, *_: transport.close(drain=error is None and not stop.is_set()))
        announcer = Announcer(config, claim, transport, wire_dtype)

        if checkpoint:
            pool.restore(fetcher.fetch_used(checkpoint.reuse_positions()))
        redo = Redo(config, learner, fetcher, pool, announcer, checkpoint.state.environment if checkpoint else {})
        newest = redo.run(log, stop)
        reader.rewind()
        samples = stack.enter_context(closing(SampleSource(config, learner, reader, fetcher, pool, writer)))
        trainer = Trainer(config, learner, samples, announcer, stop)
        trainer.train()
        trainer.leave(end_announced=newest is not None and newest.final and newest.version == learner.version)


class Trainer:
    """Reads, steps, records and announces: one after the other, in one thread."""

    def __init__(
        self, config: Config, learner: Learner, samples: SampleSource, announcer: Announcer, stop: StopEvent
    ) -> None:
        self._config = config.trainer
        self._learner = learner
        self._samples = samples
        self._announcer = announcer
        self._stop = stop
        self._gap = LogprobGapMonitor(self._config.max_logprob_gap, self._config.on_logprob_gap)
        self._seconds = {"publish_s": 0.0, "checkpoint_s": 0.0}
        self._activity = role_activity()
        self._end_announced = False
        self._logged_at = 0.0

    def train(self) -> None:
        """Take steps until the last one, until stopped, or until no more events come."""
        while self._learner.step < self._config.steps and self._wait_until_step_possible():
            self._take_step()
            if self._learner.step % self._config.checkpoint_interval == 0:
                self._checkpoint()

    def leave(self, *, end_announced: bool) -> None:
        """Write what the next start needs, and announce the end of training if it has come.

        ``end_announced`` says that an earlier process has announced it already.
        """
        learner = self._learner
        done = learner.step >= self._config.steps or (not self._stop.is_set() and self._samples.exhausted)
        if done and not (self._end_announced or end_announced):
            self._announce_end()
        if learner.checkpointed_step != learner.step:
            self._checkpoint()
        logger.info("%s at step %d, version %d", "done" if done else "stopped", learner.step, learner.version)

    def _wait_until_step_possible(self) -> bool:
        """Read until a step is possible. Return False when stopped, or when no more events will come."""
        while not self._stop.is_set():
            if self._samples.read(self._learner.version, self._stop):
                return True
            if self._samples.exhausted:
                return False
            if self._samples.has_urgent_drops:
                self._record_drops()
            self._announcer.check_claim()
            self._learner.engine.check()
        return False

    def _take_step(self) -> None:
        learner = self._learner
        self._activity.works("takes step %d", learner.step + 1)
        samples = self._samples.take()
        version, begins = learner.version, learner.version_step == learner.step
        metrics, weights = learner.learn(samples)
        learned_at = time.perf_counter()
        drops, retired, duplicates = self._samples.take_drops()
        last = learner.step >= self._config.steps
        announces = last or learner.step - learner.version_step >= self._config.sync_interval
        seconds, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        metrics |= seconds | self._samples.take_metrics() | self._announcer.take_metrics()
        metrics |= staleness_metrics(samples, version)
        metrics["duplicates"] = float(duplicates)
        metrics["replayed"] = float(sum(sample.uses > 0 for sample in samples))
        record = training_step(
            learner,
            kind="step",
            version=version,
            next_version=version + announces,
            trained=samples,
            drops=drops,
            retired=retired,
            metrics=metrics,
        )
        # Before the weights' folder: a trainer that is fenced must not replace what its successor has written.
        self._record(record)
        self._samples.mark_trained(samples)
        if announces:
            self._end_announced = self._announcer.publish(learner, learner.version, weights, final=last).final
        self._seconds["publish_s"] = time.perf_counter() - learned_at
        self._activity.progressed()
        self._log(metrics)
        self._gap.check(learner.step, metrics, version=version, begins=begins)

    def _record_drops(self) -> None:
        """Record drops that no step will carry soon, so that the conductor stops waiting for their tasks."""
        drops, retired, _ = self._samples.take_drops()
        self._record_retirement(drops, retired, self._learner.version)

    def _record_retirement(self, drops: Sequence[Drop], retired: Sequence[int], next_version: int) -> None:
        record = training_step(
            self._learner,
            kind="retire",
            version=self._learner.version,
            next_version=next_version,
            trained=(),
            drops=drops,
            retired=retired,
            metrics={},
        )
        self._record(record)

    def _record(self, record: TrainingStep) -> None:
        self._learner.apply_record(record, self._announcer.record(record))

    def _announce_end(self) -> None:
        """Announce the weights as final: no announced version was, because trainer.steps was lowered or data ended."""
        learner = self._learner
        version = learner.version + (learner.version_step != learner.step)
        if version > learner.version:
            self._record_retirement([], [], version)
        self._announcer.publish(learner, version, learner.engine.serialized(), final=True)

    def _checkpoint(self) -> None:
        started = time.perf_counter()
        self._activity.works("writes the checkpoint of step %d", self._learner.step)
        try:
            self._learner.checkpoint(self._samples.reuse_positions)
        except CheckpointError as error:
            logger.error("%s. Training goes on; the next try is in %d steps", error, self._config.checkpoint_interval)
        self._activity.progressed()
        self._seconds["checkpoint_s"] += time.perf_counter() - started

    def _log(self, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._logged_at < LOG_EVERY_S and not self._end_announced:
            return
        self._logged_at = now
        logger.info(
            "step %d/%d version %d reward %.3f loss %.4f grad %.2f staleness %.0f idle %.2f s step %.2f s",
            self._learner.step,
            self._config.steps,
            self._learner.version,
            *(metrics.get(name, math.nan) for name in LOGGED),  # a value that is not finite is no metric
        )
