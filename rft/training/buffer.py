"""Collects samples into whole groups until a step takes them. Pure: no I/O, no clock.

A group is whole when as many distinct events, each a row of a sample, have arrived as its release holds. Whole groups
are trained by priority, then by task number. Groups that are too stale, entirely filtered, or seen before are dropped
with a cause.

Memory is bounded by pointers. Once the buffer holds ``max_bytes`` of arrays, further samples are held without theirs
(``payload`` is None), and their arrays are fetched again from the log when their group is trained. So a full buffer
still takes in the one sample that a group lacks.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from rft.log.coordinates import LogPosition
from rft.training.progress import Retired
from rft.training.sample import Sample, filter_whole_samples
from rft.training.sample_group import PriorityOf, ReleaseKey, SampleGroup, by_processor, held_bytes
from schemas.events import NOT_WRITTEN

Rank = tuple[float, float, bool, int, LogPosition]
"""Sorts whole groups; the lowest is trained first."""


class DropCause(StrEnum):
    """Why an event was dropped, as ``EventRef.cause``."""

    STALE = "stale"
    """The oldest token of its group is older than ``max_staleness`` allows."""
    FILTERED = "filtered"
    """The processor's verdict, or this model cannot be trained on it."""
    DUPLICATE = "duplicate"
    """It, or its whole group, was trained or dropped before."""
    UNWANTED = "unwanted"
    """Its kind has no share in ``buffer.mix``."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A sample that will not be trained."""

    sample: Sample
    cause: DropCause


class GroupBuffer:
    """Holds the samples that were read and not yet trained or dropped."""

    def __init__(
        self,
        max_bytes: int,
        retired: Retired,
        priority_of: PriorityOf = by_processor,
        kinds: Collection[str] | None = None,
        *,
        stalest_first: bool = False,
    ) -> None:
        """Start empty.

        Args:
            max_bytes: bytes of arrays to hold.
            retired: what was trained or dropped before. It is only read here; its owner updates it when a TrainingStep
                was published.
            kinds: groups of other kinds are dropped; None: all are kept.
            stalest_first: train groups with older tokens first; the priority decides among those of the same version.
        """
        self._stalest_first = stalest_first
        self._priority_of = priority_of
        self._kinds = kinds
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._retired = retired
        self._unreported: set[int | str] = set()
        """Groups that left the buffer since :meth:`take_drops`, by identity; not yet in ``retired``."""
        self._groups: dict[ReleaseKey, SampleGroup] = {}
        self._keys: defaultdict[int | str, set[ReleaseKey]] = defaultdict(set)
        """Releases of each group."""
        self._heaps: defaultdict[str, list[tuple[Rank, ReleaseKey]]] = defaultdict(list)
        """Whole releases by kind. An entry whose key is no longer in ``_whole`` is out of date."""
        self._whole: dict[ReleaseKey, int] = {}
        """Oldest version of each whole release."""
        self._whole_releases: Counter[int | str] = Counter()
        """Whole releases of each group. Only one of them can be trained."""
        self._whole_by_kind: Counter[str] = Counter()
        """Groups with a whole release."""
        self._drops: list[Drop] = []
        self._duplicates = 0

    @property
    def full(self) -> bool:
        """True when further samples are held as pointers only."""
        return self.held_bytes >= self.max_bytes

    @property
    def whole_groups(self) -> int:
        """Groups that could be trained now. Call ``drop_stale`` first."""
        return self._whole_by_kind.total()

    def whole_groups_of(self, kind: str) -> int:
        """Return how many of ``whole_groups`` are of this kind."""
        return self._whole_by_kind[kind]

    def oldest_versions(self) -> list[int]:
        """Return the oldest version of each whole release that the policy wrote."""
        return [oldest for oldest in self._whole.values() if oldest != NOT_WRITTEN]

    def has_come(self, number: int) -> bool:
        """Return whether the group of this task is whole, or was trained or dropped."""
        return self._whole_releases[number] > 0 or number in self._unreported or number in self._retired.numbers

    def incomplete(self, count: int) -> list[str]:
        """Return the first groups that lack samples, at most ``count``: by number, or by id if they have none."""
        lacking = (group for group in self._groups.values() if not group.whole)
        first = heapq.nsmallest(count, lacking, key=lambda group: (group.number < 0, group.number, group.group_id))
        return [str(group.number) if group.number >= 0 else group.group_id for group in first]

    @property
    def unreported_drops(self) -> int:
        """Number of drops that ``take_drops`` would return."""
        return len(self._drops)

    @property
    def has_unreported_tasks(self) -> bool:
        """True if a dropped group has a task number, which the conductor waits for."""
        return any(isinstance(identity, int) for identity in self._unreported)

    def __len__(self) -> int:
        """Return the number of samples held."""
        return sum(len(group.samples) for group in self._groups.values())

    def add(self, sample: Sample) -> None:
        """Take in one event of the ``train`` split. A duplicate is dropped."""
        key = (sample.group_id, sample.release_id)
        group = self._groups.get(key)
        if self._was_retired(sample) or (group is not None and sample.experience_id in group.samples):
            self._drop(sample, DropCause.DUPLICATE)
            return
        if group is None:
            group = self._groups[key] = SampleGroup(*key, sample.number, sample.release_size)
            self._keys[_identity(sample)].add(key)
        if sample.payload is not None and self.full:
            sample.payload = None
        group.samples[sample.experience_id] = sample
        self.held_bytes += held_bytes(sample)
        if group.whole and key not in self._whole:
            self._add_whole(group)

    def drop_stale(self, version: int, max_staleness: int) -> None:
        """Drop whole groups with a token older than ``version - max_staleness``."""
        stale = [key for key, oldest in self._whole.items() if NOT_WRITTEN != oldest < version - max_staleness]
        for key in stale:
            # This release is gone already if another release of its group was stale too.
            if key in self._groups:
                self._retire(self._groups[key], DropCause.STALE)
        if sum(map(len, self._heaps.values())) > 2 * len(self._whole) + 64:
            for kind, entries in self._heaps.items():
                self._heaps[kind] = [entry for entry in entries if entry[1] in self._whole]
                heapq.heapify(self._heaps[kind])

    def take(self, groups: int, kind: str | None = None) -> list[SampleGroup]:
        """Remove and return the first ``groups`` whole groups, of one kind or of any. So many must be there.

        Other releases of these groups are dropped as duplicates.
        """
        taken: list[SampleGroup] = []
        while len(taken) < groups:
            heaps = [heap for name, heap in self._heaps.items() if heap and kind in (None, name)]
            _, key = heapq.heappop(min(heaps, key=lambda heap: heap[0]))
            if key not in self._whole:
                continue
            group = self._remove(key)
            taken.append(group)
            self._drop_other_releases(group)
            self._drops += [Drop(sample, DropCause.FILTERED) for sample in group.samples.values() if sample.filtered]
            self._unreported.add(_identity(group))
        return taken

    def take_drops(self) -> tuple[list[Drop], list[int], int]:
        """Return what happened since the last call: drops, retired task numbers (ascending), number of duplicates."""
        numbers = sorted(identity for identity in self._unreported if isinstance(identity, int))
        drops, duplicates = self._drops, self._duplicates
        self._drops, self._unreported, self._duplicates = [], set(), 0
        return drops, numbers, duplicates

    def _was_retired(self, sample: Sample) -> bool:
        return _identity(sample) in self._unreported or self._retired.has(sample.number, sample.experience_id)

    def _add_whole(self, group: SampleGroup) -> None:
        self.held_bytes -= group.held_bytes
        filter_whole_samples(group.samples.values())
        self.held_bytes += group.held_bytes
        if not group.trainable:
            if group.number >= 0 and self._whole_releases[_identity(group)]:
                # Another release of this task can be trained, and this one must not retire it.
                for sample in self._remove(group.key).samples.values():
                    self._drop(sample, DropCause.FILTERED)
                return
            self._retire(group, DropCause.FILTERED)
            return
        if self._kinds is not None and group.kind not in self._kinds:
            self._retire(group, DropCause.UNWANTED)
            return
        self._whole[group.key] = group.oldest_version
        self._whole_by_kind[group.kind] += not self._whole_releases[_identity(group)]
        self._whole_releases[_identity(group)] += 1
        heapq.heappush(self._heaps[group.kind], (self._rank(group), group.key))

    def _rank(self, group: SampleGroup) -> Rank:
        """Rank by priority, then task number (groups without one last), then position in the log."""
        first = min(sample.position for sample in group.samples.values())
        written = math.inf if group.oldest_version == NOT_WRITTEN else group.oldest_version
        age = float(written) if self._stalest_first else 0.0
        return age, -self._priority_of(group), group.number < 0, group.number, first

    def _retire(self, group: SampleGroup, cause: DropCause) -> None:
        self._remove(group.key)
        for sample in group.samples.values():
            self._drop(sample, DropCause.FILTERED if sample.filtered else cause)
        self._drop_other_releases(group)
        self._unreported.add(_identity(group))

    def _drop_other_releases(self, group: SampleGroup) -> None:
        for key in list(self._keys.get(_identity(group), ())):
            for sample in self._remove(key).samples.values():
                self._drop(sample, DropCause.DUPLICATE)

    def _remove(self, key: ReleaseKey) -> SampleGroup:
        group = self._groups.pop(key)
        if self._whole.pop(key, None) is not None:
            self._whole_releases[_identity(group)] -= 1
            if not self._whole_releases[_identity(group)]:
                del self._whole_releases[_identity(group)]
                self._whole_by_kind[group.kind] -= 1
        self.held_bytes -= group.held_bytes
        keys = self._keys[_identity(group)]
        keys.discard(key)
        if not keys:
            del self._keys[_identity(group)]
        return group

    def _drop(self, sample: Sample, cause: DropCause) -> None:
        sample.payload = None
        self._duplicates += cause is DropCause.DUPLICATE
        self._drops.append(Drop(sample, cause))


def _identity(owner: SampleGroup | Sample) -> int | str:
    """Return what all releases of one group share: the task's number, or without one the group's id."""
    return owner.number if owner.number >= 0 else owner.group_id
