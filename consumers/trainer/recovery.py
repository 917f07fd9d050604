"""From a checkpoint and the redo log back to the state that the trainer was killed in."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from threading import Event as StopEvent
from typing import Any, TypeVar

from safetensors.torch import load

from consumers.trainer.announcer import Announcer
from consumers.trainer.intake import ExactReader, client_id
from consumers.trainer.learner import Learner, differences, made_with
from rft.config import Config
from rft.errors import CheckpointError, WeightsError
from rft.log.events import EventReader
from rft.log.retention import deleted
from rft.stream.fence import Fence
from rft.training.pool import Pool
from rft.training.sample import Sample
from rft.weights.checkpoint import fetch, weights_path
from rft.weights.file import WeightsFile
from schemas.events import Record, TrainingStep, WeightVersion

BESIDE = "value_crc32"
"""Metric that stands for what a step changes beside the weights, whose digest the record holds."""

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)
_RECORDED = "the redo log, which is all that says how these weights were made, goes on there"
Entry = tuple[tuple[int, int], TrainingStep]
"""An own event of ``steps`` and its (partition, offset)."""


def read_own_log(config: Config, learner: Learner, announcer: Announcer) -> tuple[list[Entry], WeightVersion | None]:
    """What this trainer has left on the log: the redo log after what ``learner`` already holds, in order, and the
    newest weight version that is announced.

    Raises CheckpointError when the log is another run's.
    """
    entries, newest = read_entries(config, learner), newest_announced(config)
    begun = learner.step > 0 or learner.version > 0
    if begun or newest is None or (newest.version == 0 and newest.sha256 == _digest(learner, announcer)):
        return entries, newest
    if newest.version == 0 or not entries:
        raise CheckpointError(
            f"the log of namespace '{config.log.namespace}' already holds weight version {newest.version} of "
            f"'{newest.model}', which this trainer has no record of or which started from another model than "
            f"{config.policy.model}. For a new run set another log.namespace (or trainer.model_key)"
        )
    return entries, newest


def _digest(learner: Learner, announcer: Announcer) -> str:
    return announcer.published_digest(learner.engine.serialized())


def read_entries(config: Config, learner: Learner) -> list[Entry]:
    """This trainer's redo log after what ``learner`` already holds, in order.

    Raises CheckpointError when it does not continue the learner's state: then it is another run's log;
    MissingRangeError when its beginning is needed and was deleted.
    """
    last = learner.last_record
    fence = Fence()
    entries = [
        (place, record)
        for place, record in _own(config, "steps", TrainingStep, {("steps", last[0]): last[1]} if last else {})
        if fence.counts(record)
    ]
    if last is not None:
        if not entries or not _same_state(entries[0], last, learner):
            raise CheckpointError(
                f"the checkpoint of step {learner.step} was made with another log than namespace "
                f"'{config.log.namespace}' now holds (its last entry in steps is not at {last[0]}:{last[1]}). "
                f"Give the new run another run.name, or delete {config.run.path} to start over"
            )
        entries = entries[1:]
    elif entries:
        _need_beginning(config)
    expected = learner.step
    for _, record in entries:
        expected += record.kind == "step"
        if record.step != expected:
            raise CheckpointError(
                f"the redo log of '{config.trainer.model_key}' in namespace '{config.log.namespace}' goes on with step "
                f"{record.step} where {expected} was expected: another trainer with the same trainer.model_key wrote "
                "to it, or it belongs to another run. Use another log.namespace or trainer.model_key"
            )
    return entries


def newest_announced(config: Config) -> WeightVersion | None:
    """The newest weight version that is on the log."""
    versions = [record for _, record in _own(config, "weights", WeightVersion, {})]
    return max(versions, key=lambda record: record.version, default=None)


class Redo:
    """Does recorded steps again, exactly as they were, and publishes only what is missing."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        exact: ExactReader,
        announcer: Announcer,
        pool: Pool,
        *,
        made_with: Mapping[str, Any],
    ) -> None:
        """``made_with`` is the checkpoint's, to explain a mismatch by what has changed since."""
        self._config = config
        self._learner = learner
        self._exact = exact
        self._announcer = announcer
        self._pool = pool
        self._before = made_with
        self._strayed = False
        """A redone step has led to other bits, and the configuration allows for that."""

    def run(self, entries: list[Entry], newest: WeightVersion | None, stop: StopEvent) -> WeightVersion | None:
        """Redo all ``entries``; ``newest`` is the newest version on the log, as is what this returns.

        Raises CheckpointError when a step does not lead to the recorded weights.
        """
        learner = self._learner
        if learner.version_step == learner.step:
            newest = self._make_known(learner.version, learner.engine.serialized(), newest, stop)
        steps = sum(record.kind == "step" for _, record in entries)
        if steps:
            logger.info("redoing %d recorded steps after step %d", steps, learner.step)
        for place, record in entries:
            if stop.is_set():
                return newest
            newest = self._redo(place, record, newest, stop)
        if steps:
            logger.info("redone: step %d, version %d", learner.step, learner.version)
        if self._strayed:
            # A later start must not redo these steps once more, to yet other bits.
            learner.checkpoint(self._pool.places)
        return newest

    def _redo(
        self, place: tuple[int, int], record: TrainingStep, newest: WeightVersion | None, stop: StopEvent
    ) -> WeightVersion | None:
        learner = self._learner
        weights = None
        samples: list[Sample] = []
        if record.kind == "step":
            samples = self._exact.used([(ref.partition, ref.offset, ref.use - 1) for ref in record.trained])
            metrics, weights = learner.learn(samples)
            if learner.digest != record.digest or metrics.get(BESIDE) != record.metrics.get(BESIDE):
                if not self._config.trainer.redo_tolerance:
                    raise CheckpointError(self._mismatch(record))
                self._strayed = True
        if record.next_version > record.version:
            newest = self._make_known(record.next_version, weights or learner.engine.serialized(), newest, stop)
        learner.recorded(record, place)
        self._pool.trained(samples)
        return newest

    def _make_known(
        self, version: int, weights: WeightsFile, newest: WeightVersion | None, stop: StopEvent
    ) -> WeightVersion | None:
        """The learner has become ``version``: write it if it is the newest, announce it if nobody has."""
        if newest is not None and version < newest.version:
            return newest
        if self._strayed and newest is not None and version == newest.version and self._near(newest, weights):
            return newest
        last = self._learner.step >= self._config.trainer.steps
        event = self._announcer.write_version(self._learner, version, weights, stop, final=last)
        told = newest is not None and version == newest.version and event.sha256 == newest.sha256
        if told and not self._announcer.collective:
            return newest
        # Not announced yet, or by a transfer that has ended with its trainer: now there is a folder, and whoever sees
        # no folders is sent it.
        self._announcer.announce(event, weights)
        return event

    def _near(self, announced: WeightVersion, weights: WeightsFile) -> bool:
        """Whether the announced weights are still there; they stay then, for explorers may have them.

        Raises CheckpointError when these are farther from them than is allowed.
        """
        try:
            there = load(weights_path(fetch(announced, self._config.run.path)).read_bytes())
        except (WeightsError, OSError):
            return False
        distance = max(float((tensor - there[name]).abs().max()) for name, tensor in weights.tensors().items())
        allowed = self._config.trainer.redo_tolerance
        if distance > allowed:
            raise CheckpointError(
                f"the redone steps lead to weights that differ by up to {distance:.3g} from those announced as version "
                f"{announced.version}; trainer.redo_tolerance allows for {allowed:g}"
            )
        logger.info("redone within %.3g of the announced version %d", distance, announced.version)
        return True

    def _mismatch(self, record: TrainingStep) -> str:
        changed = differences(self._before, made_with(self._config)) if self._before else []
        return (
            f"redoing step {record.step} led to weights {self._learner.digest[:12]}…, but {record.digest[:12]}… were "
            "recorded, so going on would not continue this run. "
            + (f"Changed since the checkpoint: {'; '.join(changed)}. " if changed else "")
            + "A step repeats bit for bit only with the same model, hyperparameters, trainer.threads, library "
            "versions, engine, ranks and kind of CPU: restore them, set trainer.redo_tolerance (such as 1e-3) if "
            "weights so close will do, or start a new run under another run.name and log.namespace"
        )


def _need_beginning(config: Config) -> None:
    with EventReader(config, f"{client_id(config)}-steps", ["steps"]) as reader:
        for (entity, partition), begin in reader.begin_offsets().items():
            if begin > 0:
                raise deleted(config, entity, partition, 0, begin, needed=_RECORDED)


def _same_state(entry: Entry, last: tuple[int, int], learner: Learner) -> bool:
    place, record = entry
    return place == last and record.step == learner.step and record.digest in ("", learner.recorded_digest)


def _own(
    config: Config, entity: str, kind: type[R], positions: dict[tuple[str, int], int]
) -> Iterator[tuple[tuple[int, int], R]]:
    """This trainer's records of a topic from ``positions`` (else the beginning) to its present end."""
    key, client = config.trainer.model_key.encode(), f"{client_id(config)}-{entity}"
    with EventReader(config, client, [entity], positions=positions, needed=_RECORDED) as reader:
        ends = reader.end_offsets()
        while not reader.caught_up(ends):
            for event in reader.poll(1.0):
                if event.key == key and event.value is not None:
                    yield (event.partition, event.offset), event.record(kind)
