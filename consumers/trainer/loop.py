"""The trainer's main loop: recover, then read, step, record, announce, until the last step."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, closing
from threading import Event as StopEvent

from consumers.trainer.announcer import Announcer, staleness, training_step
from consumers.trainer.baseline import Baseline
from consumers.trainer.claim import Claim
from consumers.trainer.intake import ExactReader, Intake, client_id
from consumers.trainer.learner import Learner
from consumers.trainer.recovery import Redo, read_own_log
from consumers.trainer.upstream import UpstreamTrainer
from rft.config import Config
from rft.errors import CheckpointError
from rft.log.events import EventWriter
from rft.training.buffer import Drop
from rft.training.checkpoint import checkpoints_of, newest_checkpoint
from rft.training.logprob_gap import LogprobGapMonitor
from rft.weights.checkpoint import versions_of
from rft.weights.folders import remove_leftovers
from schemas.events import WeightVersion

MAX_UNTOLD_DROPS = 2000
"""Drops that need no haste (duplicates) wait for the next step, but no more of them than fit a small event."""
LOG_EVERY_S = 5.0

logger = logging.getLogger(__name__)


def run(config: Config, stop: StopEvent) -> None:
    """Train until ``trainer.steps`` are done or ``stop`` is set, then leave a checkpoint.

    Raises BrokerError, PolicyError, WeightsError, CheckpointError, SamplerGapError; MissingRangeError when the log no
    longer holds what is to be read or redone; FencedError when a later start of the same trainer has taken over. Killed
    at any moment, the next call goes on as if nothing had happened.
    """
    key = config.trainer.model_key
    for folder in (checkpoints_of(config.run.path, key), versions_of(config.run.path, key)):
        remove_leftovers(folder)
    with ExitStack() as stack:
        writer = stack.enter_context(closing(EventWriter(config, client_id(config), linger_ms=0)))
        checkpoint = newest_checkpoint(config.run.path, key)
        learner = stack.enter_context(closing(Learner(config, checkpoint)))
        max_bytes = int(config.trainer.buffer_mb * 2**20)
        intake = Intake(config, writer, learner.progress, max_bytes, learner.wanted)
        stack.callback(intake.close)
        exact = stack.enter_context(closing(ExactReader(config, learner.wanted)))
        learner.progress = intake.progress
        claim = Claim(config, writer)
        announcer = Announcer(config, writer, claim)
        source = stack.enter_context(closing(UpstreamTrainer(config)))
        if checkpoint:
            logger.info("resuming from %s", checkpoint.folder)

        # Twice: a start that the log refuses must not take it from the trainer that holds it.
        read_own_log(config, learner, announcer)
        claim.take()
        entries, newest = read_own_log(config, learner, announcer)
        announcer.open_collective(learner, newest)
        stack.push(lambda error, *_: announcer.close(patiently=error is None and not stop.is_set()))
        intake.pool.restore(exact.used(learner.pool_places))
        redo = Redo(
            config, learner, exact, announcer, intake.pool, made_with=checkpoint.state.made_with if checkpoint else {}
        )
        newest = redo.run(entries, newest, stop)
        intake.rewind()
        trainer = Trainer(config, learner, intake, exact, announcer, claim, source, stop)
        trainer.train()
        trainer.leave(ended=newest is not None and newest.final and newest.version == learner.version)


class Trainer:
    """Reads, steps, records, announces: one thing after the other, in one thread."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        intake: Intake,
        exact: ExactReader,
        announcer: Announcer,
        claim: Claim,
        source: UpstreamTrainer,
        stop: StopEvent,
    ) -> None:
        self._config = config.trainer
        self._learner = learner
        self._intake = intake
        self._buffer = intake.buffer
        self._pool = intake.pool
        self._exact = exact
        self._announcer = announcer
        self._claim = claim
        self._source = source
        self._stop = stop
        self._baseline = Baseline(config, learner.step)
        self._gap = LogprobGapMonitor(self._config.max_logprob_gap, self._config.on_logprob_gap)
        self._seconds = {"idle_s": 0.0, "read_s": 0.0, "publish_s": 0.0, "checkpoint_s": 0.0}
        self._finished: WeightVersion | None = None
        self._logged_at = 0.0

    def train(self) -> None:
        """Take steps until the last, until stopped, or until nothing comes any more."""
        while self._learner.step < self._config.steps and self._gather():
            self._step()
            if self._learner.step % self._config.checkpoint_interval == 0:
                self._checkpoint()

    def leave(self, *, ended: bool) -> None:
        """Write what the next start needs, and what tells others of the end unless it was told (``ended``) before."""
        learner = self._learner
        done = learner.step >= self._config.steps or (not self._stop.is_set() and self._source.dry)
        if done and self._finished is None and not ended:
            self._announce_end()
        if learner.checkpointed_step != learner.step:
            self._checkpoint()
        logger.info("%s at step %d, version %d", "done" if done else "stopped", learner.step, learner.version)

    def _gather(self) -> bool:
        """Read until a step is possible; False when stopped before, or when nothing more will come."""
        while not self._stop.is_set():
            self._read()
            if self._possible():
                self._source.came()
                return True
            if self._source.dry:
                return False
            if self._buffer.must_tell or self._buffer.pending_drops >= MAX_UNTOLD_DROPS:
                self._tell_drops()
            self._claim.check_now_and_then()
            self._learner.engine.check()
        return False

    def _read(self) -> None:
        """Take in all that is there; wait a little only if no step is possible.

        A full buffer stops the reading as soon as a step is possible. While none is, reading goes on: the buffer then
        keeps pointers, so the members that groups still lack can come.
        """
        possible = self._possible()
        while not (possible and self._buffer.full):
            started = time.perf_counter()
            events = self._intake.poll(0.0 if possible else 0.2)
            polled = time.perf_counter()
            self._intake.take_in(events)
            self._seconds["read_s" if possible else "idle_s"] += polled - started
            self._seconds["read_s"] += time.perf_counter() - polled
            if not events or self._stop.is_set():
                return
            self._source.came()
            for event in events:
                self._baseline.saw(event.key)
            possible = self._possible()

    def _possible(self) -> bool:
        for held in (self._buffer, self._pool):
            held.drop_stale(self._learner.version, self._config.max_staleness)
        if not (self._baseline.known and self._intake.assembly.possible()):
            return False
        # An epoch goes through all of the data; what a fetch has not brought yet belongs to this one.
        return not self._intake.assembly.repeats() or self._intake.caught_up()

    def _step(self) -> None:
        learner, buffer = self._learner, self._buffer
        groups = self._intake.assembly.take()
        samples = [sample for group in groups for sample in group.trainable]
        self._exact.fill(samples)
        version = learner.version
        metrics, weights = learner.learn(samples)
        ended = time.perf_counter()
        drops, retired, duplicates = buffer.take_drops()
        last = learner.step >= self._config.steps
        announced = last or learner.step - learner.version_step >= self._config.sync_interval
        next_version = version + announced
        seconds, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        metrics |= seconds | staleness(samples, version)
        metrics |= self._announcer.take_metrics()
        metrics |= {"buffer_bytes": float(buffer.held_bytes + self._pool.held_bytes), "duplicates": float(duplicates)}
        metrics["replayed"] = float(sum(sample.uses > 0 for sample in samples))
        record = training_step(
            learner,
            kind="step",
            version=version,
            next_version=next_version,
            trained=samples,
            drops=drops,
            retired=retired,
            metrics=metrics,
        )
        # The folder comes after the entry: a trainer that is fenced must not replace what its successor has written.
        learner.recorded(record, self._announcer.record(record))
        self._pool.trained(samples)
        self._pool.shed(self._intake.max_bytes - buffer.held_bytes)
        if announced:
            event = self._announcer.publish(learner, next_version, weights, self._stop, final=last)
            self._finished = event if event.final else None
        self._seconds["publish_s"] = time.perf_counter() - ended
        self._log(metrics)
        self._gap.see(learner.step, metrics)

    def _tell_drops(self) -> None:
        """Publish drops that no step will carry soon, so that the conductor stops waiting for their tasks."""
        drops, retired, _ = self._buffer.take_drops()
        self._retire(drops, retired, self._learner.version)

    def _retire(self, drops: list[Drop], retired: list[int], next_version: int) -> None:
        learner = self._learner
        record = training_step(
            learner,
            kind="retire",
            version=learner.version,
            next_version=next_version,
            trained=(),
            drops=drops,
            retired=retired,
            metrics={},
        )
        learner.recorded(record, self._announcer.record(record))

    def _announce_end(self) -> None:
        """No version was marked final when it was announced: trainer.steps was lowered since, or the data has ended."""
        learner = self._learner
        version = learner.version + (learner.version_step != learner.step)
        if version > learner.version:
            self._retire([], [], version)
        self._announcer.publish(learner, version, learner.engine.serialized(), self._stop, final=True)

    def _checkpoint(self) -> None:
        started = time.perf_counter()
        try:
            self._learner.checkpoint(self._pool.places)
        except CheckpointError as error:
            logger.error("%s. Training goes on; the next try is in %d steps", error, self._config.checkpoint_interval)
        self._seconds["checkpoint_s"] += time.perf_counter() - started

    def _log(self, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._logged_at < LOG_EVERY_S and self._finished is None:
            return
        self._logged_at = now
        logger.info(
            "step %d/%d version %d reward %.3f loss %.4f grad %.2f staleness %.0f idle %.2f s step %.2f s",
            self._learner.step,
            self._config.steps,
            self._learner.version,
            metrics["reward_mean"],
            metrics.get("loss", float("nan")),
            metrics["grad_norm"],
            metrics["staleness_max"],
            metrics["idle_s"],
            metrics["step_s"],
        )
