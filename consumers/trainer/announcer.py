"""What the trainer writes: its steps, acknowledged before the weights that they made are announced."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import Event as StopEvent

from consumers.trainer.claim import Claim
from consumers.trainer.distributor import Distributor
from consumers.trainer.learner import Learner
from rft.config import Config
from rft.errors import WeightsError
from rft.log.events import EventWriter
from rft.training.buffer import Drop
from rft.training.sample import Sample
from rft.weights import checkpoint as transport
from rft.weights.choosing import COLLECTIVE
from rft.weights.file import WeightsFile
from rft.weights.published import published, published_companions
from schemas.events import NOT_WRITTEN, EventRef, TrainingStep, WeightVersion

RETRY_S = 2.0
"""Between two tries to write weights to a disk that was full."""

logger = logging.getLogger(__name__)


def training_step(
    learner: Learner,
    *,
    kind: str,
    version: int,
    next_version: int,
    trained: Iterable[Sample],
    drops: Iterable[Drop],
    retired: Iterable[int],
    metrics: Mapping[str, float],
) -> TrainingStep:
    """The redo log's entry for what ``learner`` has just done."""
    return TrainingStep(
        model=learner.config.trainer.model_key,
        kind=kind,
        step=learner.step,
        version=version,
        next_version=next_version,
        trained=tuple(event_ref(sample, version) for sample in trained),
        dropped=tuple(event_ref(drop.sample, version, str(drop.cause)) for drop in drops),
        retired=tuple(retired),
        digest=learner.digest if kind == "step" else "",
        metrics=metrics,
        created_at=int(time.time() * 1000),
    )


def event_ref(sample: Sample, version: int, cause: str = "") -> EventRef:
    """A sample as a step names it."""
    return EventRef(
        partition=sample.partition,
        offset=sample.offset,
        experience_id=sample.experience_id,
        number=sample.number,
        staleness=_staleness(sample, version),
        cause=cause,
        use=1 if cause else sample.uses + 1,
    )


def staleness(samples: Iterable[Sample], version: int) -> dict[str, float]:
    """``staleness_max`` and ``staleness_mean`` of a step, over samples that the policy wrote."""
    ages = [age for age in (_staleness(sample, version) for sample in samples) if age != NOT_WRITTEN]
    return {"staleness_max": float(max(ages, default=0)), "staleness_mean": sum(ages) / max(len(ages), 1)}


def _staleness(sample: Sample, version: int) -> int:
    if sample.oldest_version == NOT_WRITTEN:
        return NOT_WRITTEN
    # Another trainer's policy may be ahead of ours.
    return max(version - sample.oldest_version, 0)


class Announcer:
    """Publishes, and returns only when it is on the log."""

    def __init__(self, config: Config, writer: EventWriter, claim: Claim) -> None:
        self._config = config
        self._writer = writer
        self._claim = claim
        self._distributor: Distributor | None = None
        self._converted: tuple[WeightsFile, WeightsFile] | None = None

    def open_collective(self, learner: Learner, newest: WeightVersion | None) -> None:
        """From now on versions reach explorers by collectives, if they are configured. ``newest`` is on the log.

        Raises BrokerError, WeightsError.
        """
        if self._config.weights.transport == COLLECTIVE:
            self._distributor = Distributor(
                self._config,
                self._writer,
                lambda event, weights: self._write_folder(
                    learner, weights, event.version, event.step, final=event.final
                ),
                newest,
            )

    @property
    def collective(self) -> bool:
        """Whether versions go by collectives."""
        return self._distributor is not None

    def close(self, *, patiently: bool = True) -> None:
        """Let the newest version reach its members, within its deadline (or a moment), and close the collective."""
        if self._distributor is not None:
            self._distributor.close(patiently=patiently)

    def take_metrics(self) -> dict[str, float]:
        """Of the collective, since the last call; see :meth:`Distributor.take_metrics`."""
        return self._distributor.take_metrics() if self._distributor else {}

    def record(self, step: TrainingStep) -> tuple[int, int]:
        """Publish an entry of the redo log; its (partition, offset).

        Raises BrokerError, and FencedError when the entry does not count because another trainer has taken over.
        """
        place = self._claim.write(replace(step, incarnation=self._claim.incarnation))
        self._claim.check(place)
        return place

    def publish(
        self, learner: Learner, version: int, weights: WeightsFile, stop: StopEvent, *, final: bool
    ) -> WeightVersion:
        """Announce the learner's weights as ``version``, with a folder if one is due.

        Raises BrokerError, WeightsError.
        """
        if self._distributor is None or final or version % self._config.weights.checkpoint_every == 0:
            event = self.write_version(learner, version, weights, stop, final=final)
        else:
            event = self._unwritten(learner, version, weights)
        self.announce(event, weights)
        return event

    def write_version(
        self, learner: Learner, version: int, weights: WeightsFile, stop: StopEvent, *, final: bool
    ) -> WeightVersion:
        """Write a version's folder, waiting for space while the disk is full. Raises WeightsError if stopped then."""
        while True:
            try:
                return self._write_folder(learner, self._published(weights), version, learner.step, final=final)
            except WeightsError as error:
                if stop.wait(RETRY_S):
                    raise
                logger.error("%s; trying again every %g s", error, RETRY_S)

    def announce(self, version: WeightVersion, weights: WeightsFile) -> None:
        """Publish a version whose step is on the log, and its folder, if it names one, there. Raises BrokerError."""
        if self._distributor is not None:
            self._distributor.publish(version, self._published(weights))
            return
        self._writer.send("weights", version)
        self._writer.flush()

    def published_digest(self, weights: WeightsFile) -> str:
        """sha256 of ``weights`` as they are published."""
        return self._published(weights).sha256

    def _write_folder(
        self, learner: Learner, published: WeightsFile, version: int, step: int, *, final: bool
    ) -> WeightVersion:
        return transport.publish(
            published.data,
            published_companions(learner.companions, self._config.weights.wire_dtype),
            self._config.run.path,
            model=self._config.trainer.model_key,
            version=version,
            step=step,
            final=final,
            keep=self._config.trainer.keep_versions,
            digest=published.sha256,
        )

    def _unwritten(self, learner: Learner, version: int, weights: WeightsFile) -> WeightVersion:
        published = self._published(weights)
        return WeightVersion(
            model=self._config.trainer.model_key,
            version=version,
            step=learner.step,
            transport=COLLECTIVE,
            uri="",
            sha256=published.sha256,
            size_bytes=len(published.data),
            final=False,
            created_at=int(time.time() * 1000),
        )

    def _published(self, weights: WeightsFile) -> WeightsFile:
        """``weights`` in the wire's dtype; the newest are remembered."""
        if self._converted is None or self._converted[0] is not weights:
            self._converted = (weights, published(weights, self._config.weights.wire_dtype))
        return self._converted[1]
