"""Forms the batches of gradient steps from selected events. Pure: the same events give the same batches."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from consumers.replay.selected_event import SelectedEvent
from rft.stream.release import LEAST_SAMPLES
from rft.stream.sample_rows import ROWS_MISSING
from rft.training.sample import Sample, SampleFilter, in_batch_order, read_sample

Batch = list[Sample]


@dataclass(slots=True)
class ReplayGroups:
    """Collects groups in the order of their first selected sample; samples are ordered by id, their rows in order."""

    max_bytes: int
    """Arrays beyond this size are not kept, but fetched again when their batch is trained."""
    wanted: SampleFilter
    held_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of selected events that are not trained, by cause."""
    _samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, event: SelectedEvent) -> None:
        """Add one event. Held-out and filtered events are only counted."""
        if event.scored.experience.split != "train":
            self.skipped["held_out"] += 1
            return
        sample = read_sample(*event.position, event.scored, self.wanted)
        if sample.filtered:
            self.skipped[event.scored.cause or "untrainable"] += 1
            return
        if self.held_bytes >= self.max_bytes:
            sample = replace(sample, payload=None)
        elif sample.payload is not None:
            self.held_bytes += sample.payload.size_bytes
        self._samples.setdefault(sample.group_id, []).append(sample)

    def batches(self, groups_per_step: int, *, min_size: int, drop_uniform: bool) -> list[Batch]:
        """Return one batch a step; the last holds the remaining groups.

        Skips groups of rollouts with fewer than ``min_size`` samples and, with ``drop_uniform``, those whose rewards
        are all equal.
        """
        groups: list[list[Sample]] = []
        for selected in self._samples.values():
            samples = _whole_samples(selected)
            self.skipped[ROWS_MISSING] += len(selected) - len(samples)
            if not samples:
                continue
            cause = _skip_cause(samples, min_size, drop_uniform)
            if cause is None:
                groups.append(in_batch_order(samples))
            else:
                self.skipped[cause] += len(samples)
        self.skipped = +self.skipped  # no zeros
        starts = range(0, len(groups), groups_per_step)
        return [[sample for group in groups[at : at + groups_per_step] for sample in group] for at in starts]


def _whole_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of which all rows were selected. A release holds the rows of one try."""
    rows = Counter((sample.sample_id, sample.release_id) for sample in samples)
    return [sample for sample in samples if rows[sample.sample_id, sample.release_id] >= sample.rows]


def _skip_cause(samples: Sequence[Sample], min_size: int, drop_uniform: bool) -> str | None:
    kind = samples[0].kind
    if sum(sample.is_last_row for sample in samples) < LEAST_SAMPLES.get(kind, min_size):
        return "group_too_small"
    if kind == "rollout" and drop_uniform and len({sample.reward for sample in samples}) == 1:
        return "uniform"
    return None


def batches_digest(batches: Iterable[Batch]) -> str:
    """Return the sha256 over the events and rewards of all batches: equal for equal batches in equal order."""
    digest = hashlib.sha256()
    for batch in batches:
        values = [[*sample.position, sample.experience_id, sample.reward] for sample in batch]
        digest.update(json.dumps(values).encode())
    return digest.hexdigest()


def epochs(batches: Sequence[Batch], count: int) -> Iterator[Batch]:
    """Yield all batches ``count`` times, each time in the same order."""
    for _ in range(count):
        yield from batches
