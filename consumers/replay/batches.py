"""From selected events to the batches of gradient steps. Pure: the same events give the same batches."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from consumers.replay.fields import Picked
from rft.stream.group import LEAST_MEMBERS
from rft.training.sample import Sample, Wanted, read_sample

Batch = list[Sample]


@dataclass(slots=True)
class Groups:
    """Groups in the order in which their first selected member comes; members by experience id."""

    max_bytes: int
    """Arrays beyond this are not kept but fetched again when their batch is trained."""
    wanted: Wanted
    held_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Selected events that are not trained, by cause."""
    _members: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, picked: Picked) -> None:
        """Take in one event; held-out and filtered ones are only counted."""
        if picked.scored.experience.split != "train":
            self.skipped["held_out"] += 1
            return
        sample = read_sample(*picked.place, picked.scored, self.wanted)
        if sample.filtered:
            self.skipped[picked.scored.cause or "untrainable"] += 1
            return
        if sample.payload is not None:
            if self.held_bytes >= self.max_bytes:
                sample.payload = None
            else:
                self.held_bytes += sample.payload.size_bytes
        self._members.setdefault(sample.group_id, []).append(sample)

    def batches(self, groups_per_step: int, *, min_size: int, drop_uniform: bool) -> list[Batch]:
        """One batch a step, the last with the groups that are left over.

        Groups of rollouts with fewer than ``min_size`` members, and if ``drop_uniform`` those whose rewards are all
        equal, are left out.
        """
        kept: list[list[Sample]] = []
        for members in self._members.values():
            cause = _cause(members, min_size, drop_uniform)
            if cause is None:
                kept.append(sorted(members, key=lambda sample: sample.experience_id))
            else:
                self.skipped[cause] += len(members)
        starts = range(0, len(kept), groups_per_step)
        return [[sample for group in kept[at : at + groups_per_step] for sample in group] for at in starts]


def _cause(members: Sequence[Sample], min_size: int, drop_uniform: bool) -> str | None:
    kind = members[0].kind
    if len(members) < LEAST_MEMBERS.get(kind, min_size):
        return "group_too_small"
    if kind == "rollout" and drop_uniform and len({sample.reward for sample in members}) == 1:
        return "uniform"
    return None


def digest(batches: Iterable[Batch]) -> str:
    """sha256 over every batch's events and rewards in order: equal for equal batches in equal order."""
    found = hashlib.sha256()
    for batch in batches:
        found.update(json.dumps([[*sample.place, sample.experience_id, sample.reward] for sample in batch]).encode())
    return found.hexdigest()


def epochs(batches: Sequence[Batch], count: int) -> Iterator[Batch]:
    """All batches ``count`` times, each time in the same order."""
    for _ in range(count):
        yield from batches
