"""Makes the entries of the redo log: what a step used, dropped and retired. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from rft.training.buffer import Drop
from rft.training.learner import Learner
from rft.training.sample import Sample
from schemas.events import NOT_WRITTEN, EventRef, TrainingStep


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
    """Return the entry for what ``learner`` has just done.

    Args:
        kind: ``step`` for a gradient step, ``retire`` for drops without one.
        version: newest weight version before it.
        next_version: newest weight version after it.
        retired: numbers of the tasks that are trained or dropped by it.
    """
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
    """Return the reference by which a record names ``sample``. ``cause`` says why it was dropped."""
    return EventRef(
        partition=sample.partition,
        offset=sample.offset,
        experience_id=sample.experience_id,
        number=sample.number,
        staleness=_staleness(sample, version),
        cause=cause,
        use=1 if cause else sample.uses + 1,
    )


def staleness_metrics(samples: Iterable[Sample], version: int) -> dict[str, float]:
    """Return ``staleness_max`` and ``staleness_mean`` of a step, over the samples that the policy wrote."""
    ages = [age for age in (_staleness(sample, version) for sample in samples) if age != NOT_WRITTEN]
    return {"staleness_max": float(max(ages, default=0)), "staleness_mean": sum(ages) / max(len(ages), 1)}


def _staleness(sample: Sample, version: int) -> int:
    if sample.oldest_version == NOT_WRITTEN:
        return NOT_WRITTEN
    # The policy of another trainer may be ahead of this one.
    return max(version - sample.oldest_version, 0)
