"""Leads from a checkpoint and the redo log back to the state in which the trainer was killed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from threading import Event as StopEvent
from typing import Any, NamedTuple, TypeVar

from safetensors.torch import load
from torch import Tensor

from consumers.trainer.announcer import Announcer
from consumers.trainer.claim import Claim
from consumers.trainer.ready_reader import client_id
from consumers.trainer.sample_fetcher import SampleFetcher
from rft.config import Config
from rft.errors import CheckpointError, OtherLogError, WeightsError
from rft.log.coordinates import EntityPartition, LogPosition, ReusePosition
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, Reject, read_record
from rft.log.retention import retention_error
from rft.model_files.model_folder import weights_path
from rft.model_files.weights_file import WeightsFile
from rft.stream.fence import Fence
from rft.telemetry.activity import role_activity
from rft.training.environment import environment_changes, training_environment
from rft.training.learner import Learner
from rft.training.reuse_pool import ReusePool
from rft.training.sample import Sample
from rft.weights.version_folders import fetch
from rft.weights.wire_dtype import WireDtype
from schemas.events import Record, TrainingStep, WeightVersion

VALUE_HEAD_CHECKSUM = "value_crc32"
"""Metric that identifies what a step changes apart from the weights, whose digest the record holds."""

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)
_NEEDED = "the redo log, which alone says how these weights were made, goes on there"


class Entry(NamedTuple):
    """One of this trainer's records in ``steps``."""

    position: LogPosition
    record: TrainingStep


class OwnLog(NamedTuple):
    """What this trainer has left on the log."""

    entries: list[Entry]
    """The redo log after what the learner already holds, in order."""
    newest: WeightVersion | None
    """Newest weight version that is announced."""


def claim_accepted_log(config: Config, learner: Learner, claim: Claim, wire_dtype: WireDtype) -> OwnLog:
    """Take over the redo log, unless it is another run's, and return what it holds.

    A start that the log refuses must not take it from the trainer that holds it, so the log is read before it is
    claimed. It is read again afterwards, because that trainer may have written meanwhile.

    Raises CheckpointError when the log is another run's, MissingRangeError when the part that is needed was deleted,
    BrokerError.
    """
    read_own_log(config, learner, wire_dtype, CountedRejects().reject)
    claim.take()
    return read_own_log(config, learner, wire_dtype, claim.reject)


def read_own_log(config: Config, learner: Learner, wire_dtype: WireDtype, reject: Reject) -> OwnLog:
    """Return what this trainer has left on the log. Raises as :func:`claim_accepted_log` does.

    ``reject`` takes the events of ``steps`` that are no records.
    """
    entries, newest = read_entries(config, learner, reject), newest_announced(config)
    begun = learner.step > 0 or learner.version > 0
    if begun or newest is None or (newest.version == 0 and newest.sha256 == _published_digest(learner, wire_dtype)):
        return OwnLog(entries, newest)
    if newest.version == 0 or not entries:
        raise CheckpointError(
            f"the log of namespace '{config.log.namespace}' already holds weight version {newest.version} of "
            f"'{newest.model}', which this trainer has no record of or which started from another model than "
            f"{config.policy.model}. For a new run set another log.namespace (or trainer.model_key)"
        )
    return OwnLog(entries, newest)


def read_entries(config: Config, learner: Learner, reject: Reject) -> list[Entry]:
    """Return this trainer's redo log after what ``learner`` already holds, in order.

    ``reject`` takes the events that are no records.

    Raises CheckpointError when it does not continue the learner's state, so that it is another run's log;
    MissingRangeError when its beginning is needed and was deleted.
    """
    last = learner.last_record
    fence = Fence()
    start = {EntityPartition("steps", last.partition): last.offset} if last else {}
    entries = [
        Entry(position, record)
        for position, record in _own_records(config, "steps", TrainingStep, start, reject)
        if fence.counts(record)
    ]
    if last is not None:
        if not entries or not _is_state_of(learner, entries[0], last):
            raise OtherLogError(
                f"the checkpoint of step {learner.step} was made with another log than namespace "
                f"'{config.log.namespace}' now holds (its last entry in steps is not at {last.partition}:"
                f"{last.offset}). Give the new run another run.name, or delete {config.run.path} to start over"
            )
        entries = entries[1:]
    elif entries:
        _check_beginning(config)
    _check_order(config, entries, learner.step)
    return entries


def newest_announced(config: Config) -> WeightVersion | None:
    """Return this trainer's newest weight version on the log; None if there is none. Raises BrokerError."""
    reject = CountedRejects().reject  # the conductor publishes the dead letters of this topic
    versions = [record for _, record in _own_records(config, "weights", WeightVersion, {}, reject)]
    return max(versions, key=lambda record: record.version, default=None)


class Redo:
    """Repeats recorded steps exactly as they were, and publishes only what is missing."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        fetcher: SampleFetcher,
        pool: ReusePool,
        announcer: Announcer,
        environment: Mapping[str, Any],
    ) -> None:
        """``environment`` is the checkpoint's, to explain a mismatch by what has changed since."""
        self._config = config
        self._learner = learner
        self._fetcher = fetcher
        self._pool = pool
        self._announcer = announcer
        self._environment = environment
        self._diverged = False
        """True once a redone step has led to other bits, which ``trainer.redo_tolerance`` allows."""

    def run(self, log: OwnLog, stop: StopEvent) -> WeightVersion | None:
        """Redo all entries of ``log`` and return the newest version that is announced then.

        Raises CheckpointError when a step does not lead to the recorded weights, MissingRangeError when its events
        were deleted, BrokerError, WeightsError.
        """
        learner, newest = self._learner, log.newest
        if learner.version_step == learner.step:
            newest = self._restore_version(learner.version, learner.engine.serialized(), newest)
        steps = sum(record.kind == "step" for _, record in log.entries)
        if steps:
            logger.info("redoing %d recorded steps after step %d", steps, learner.step)
        for entry in log.entries:
            if stop.is_set():
                return newest
            role_activity().works("redoes step %d", entry.record.step)
            newest = self._redo(entry, newest)
            role_activity().progressed()
        if steps:
            logger.info("redone: step %d, version %d", learner.step, learner.version)
        if self._diverged:
            # A later start must not redo these steps once more, to yet other bits.
            learner.checkpoint(self._pool.positions)
        return newest

    def _redo(self, entry: Entry, newest: WeightVersion | None) -> WeightVersion | None:
        learner, record = self._learner, entry.record
        weights = None
        samples: list[Sample] = []
        if record.kind == "step":
            samples = self._fetcher.fetch_used(
                [ReusePosition(ref.partition, ref.offset, ref.use - 1) for ref in record.trained]
            )
            metrics, weights = learner.learn(samples)
            if not self._matches(record, metrics):
                if not self._config.trainer.redo_tolerance:
                    raise CheckpointError(self._mismatch(record))
                self._diverged = True
        if record.next_version > record.version:
            newest = self._restore_version(record.next_version, weights or learner.engine.serialized(), newest)
        learner.apply_record(record, entry.position)
        self._pool.add_trained(samples)
        return newest

    def _matches(self, record: TrainingStep, metrics: Mapping[str, float]) -> bool:
        same_value_head = metrics.get(VALUE_HEAD_CHECKSUM) == record.metrics.get(VALUE_HEAD_CHECKSUM)
        return self._learner.digest == record.digest and same_value_head

    def _restore_version(
        self, version: int, weights: WeightsFile, newest: WeightVersion | None
    ) -> WeightVersion | None:
        """Make the version that the learner has reached available, unless a newer one is announced."""
        if newest is not None and version < newest.version:
            return newest
        if self._diverged and newest is not None and version == newest.version and self._is_close(newest, weights):
            return newest
        last = self._learner.step >= self._config.trainer.steps
        return self._announcer.restore(self._learner, version, weights, newest, final=last)

    def _is_close(self, announced: WeightVersion, weights: WeightsFile) -> bool:
        """Return whether the announced weights are still there. They stay then, because explorers may hold them.

        Raises CheckpointError when ``weights`` differ from them by more than is allowed.
        """
        try:
            stored = load(weights_path(fetch(announced, self._config.run.path)).read_bytes())
        except (WeightsError, OSError):
            return False
        distance = max(_distance(tensor, stored[name]) for name, tensor in weights.tensors().items())
        allowed = self._config.trainer.redo_tolerance
        if distance > allowed:
            raise CheckpointError(
                f"the redone steps lead to weights that differ by up to {distance:.3g} from those announced as version "
                f"{announced.version}, but trainer.redo_tolerance allows for {allowed:g}"
            )
        logger.info("redone within %.3g of the announced version %d", distance, announced.version)
        return True

    def _mismatch(self, record: TrainingStep) -> str:
        changes = environment_changes(self._environment, training_environment(self._config))
        return (
            f"redoing step {record.step} led to weights {self._learner.digest[:12]}…, but {record.digest[:12]}… were "
            "recorded, so going on would not continue this run. "
            + (f"Changed since the checkpoint: {'; '.join(changes)}. " if changes else "")
            + "A step repeats bit for bit only with the same model, hyperparameters, trainer.threads, library "
            "versions, engine, ranks and kind of CPU: restore them, set trainer.redo_tolerance (such as 1e-3) if "
            "weights that close are enough, or start a new run under another run.name and log.namespace"
        )


def _distance(redone: Tensor, announced: Tensor) -> float:
    """Return the largest difference of two tensors' elements. It is infinite where only one is not a number."""
    differences = (redone - announced).abs().masked_fill(redone == announced, 0.0)
    differences = differences.masked_fill(redone.isnan() & announced.isnan(), 0.0)
    return float(differences.nan_to_num(nan=math.inf, posinf=math.inf).max()) if differences.numel() else 0.0


def _published_digest(learner: Learner, wire_dtype: WireDtype) -> str:
    return wire_dtype.convert(learner.engine.serialized()).sha256


def _is_state_of(learner: Learner, entry: Entry, last: LogPosition) -> bool:
    """Return whether ``entry`` is the one after which the learner's checkpoint was written."""
    position, record = entry
    return position == last and record.step == learner.step and record.digest in ("", learner.recorded_digest)


def _check_beginning(config: Config) -> None:
    with EventReader(config, f"{client_id(config)}-steps", ["steps"]) as reader:
        for (entity, partition), begin in reader.begin_offsets().items():
            if begin > 0:
                raise retention_error(config, entity, partition, 0, begin, needed=_NEEDED)


def _check_order(config: Config, entries: list[Entry], step: int) -> None:
    expected = step
    for _, record in entries:
        expected += record.kind == "step"
        if record.step != expected:
            raise CheckpointError(
                f"the redo log of '{config.trainer.model_key}' in namespace '{config.log.namespace}' goes on with step "
                f"{record.step} where {expected} was expected: another trainer with the same trainer.model_key wrote "
                "to it, or it belongs to another run. Use another log.namespace or trainer.model_key"
            )


def _own_records(
    config: Config, entity: str, kind: type[R], positions: dict[EntityPartition, int], reject: Reject
) -> Iterator[tuple[LogPosition, R]]:
    """Yield this trainer's records of a topic from ``positions`` (else the beginning) to its present end."""
    key, client = config.trainer.model_key.encode(), f"{client_id(config)}-{entity}"
    with EventReader(config, client, [entity], positions=positions, needed=_NEEDED) as reader:
        ends = reader.end_offsets()
        while not reader.caught_up(ends):
            for event in reader.poll(1.0):
                record = read_record(event, kind, reject)
                if record is not None and event.key == key:
                    yield event.position, record
