"""The experience buffer: members become whole groups, groups become steps. Pure: no I/O, no clock.

A group is whole when as many distinct members have come as its release holds. Whole groups are trained by
priority, then by task number; those staler than allowed, entirely filtered or seen before are dropped with a cause.

Memory is bounded by pointers: once the buffer holds ``max_bytes`` of arrays, further samples are kept without
theirs (``payload`` is None) and their arrays are fetched again from the log when their group is trained. So a full
buffer never stands in the way of the one member that a group still lacks.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum

from rft.training.priority import GroupFacts
from rft.training.progress import Retired
from rft.training.sample import Sample
from schemas.events import NOT_WRITTEN

Key = tuple[str, str]
"""(group_id, release_id)"""
Rank = tuple[float, bool, int, tuple[int, int]]


class Cause(StrEnum):
    """Why an event was dropped, in ``EventRef.cause``."""

    STALE = "stale"
    """Its group's oldest token is older than ``max_staleness`` allows."""
    FILTERED = "filtered"
    """The processor's verdict, or a sample that this model cannot be trained on."""
    DUPLICATE = "duplicate"
    """It, or its whole group, was trained or dropped before."""
    UNWANTED = "unwanted"
    """Its kind has no share in ``buffer.mix``."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A sample that will not be trained."""

    sample: Sample
    cause: Cause


@dataclass(slots=True, eq=False)
class Group:
    """The members of one release that have come so far."""

    group_id: str
    release_id: str
    number: int
    size: int
    members: dict[str, Sample] = field(default_factory=dict)
    """By experience id."""

    @property
    def key(self) -> Key:
        """What tells this release from every other."""
        return self.group_id, self.release_id

    @property
    def whole(self) -> bool:
        """All members have come."""
        return len(self.members) >= self.size

    @property
    def trainable(self) -> list[Sample]:
        """Members to train on, by experience id, so that arrival order plays no part."""
        return [self.members[name] for name in sorted(self.members) if not self.members[name].filtered]

    @property
    def oldest_version(self) -> int:
        """Lowest version among the trainable members; -1 when the policy wrote none of them."""
        return min((s.oldest_version for s in self.trainable if s.oldest_version != NOT_WRITTEN), default=NOT_WRITTEN)

    @property
    def kind(self) -> str:
        """``rollout``, ``demonstration`` or ``preference``."""
        return next(iter(self.members.values())).kind

    @property
    def uses(self) -> int:
        """Times that it was trained."""
        return max(sample.uses for sample in self.members.values())

    @property
    def held_bytes(self) -> int:
        """Of the members' arrays that are kept."""
        return sum(_bytes(sample) for sample in self.members.values())

    @property
    def facts(self) -> GroupFacts:
        """What its priority is made of."""
        trainable = self.trainable
        return GroupFacts(
            rewards=[sample.reward for sample in trainable],
            priority=max(sample.priority for sample in self.members.values()),
            oldest_version=self.oldest_version,
            number=self.number,
        )


PriorityOf = Callable[[Group], float]


def by_processor(group: Group) -> float:
    """The priority that the group's events carry."""
    return group.facts.priority


class GroupBuffer:
    """Holds what has been read and not yet trained or dropped."""

    def __init__(
        self,
        max_bytes: int,
        retired: Retired,
        priority_of: PriorityOf = by_processor,
        wanted_kinds: Collection[str] | None = None,
    ) -> None:
        """``retired`` is read, and changed only by its owner when a TrainingStep has been published.

        Groups of other kinds than ``wanted_kinds`` are dropped; None: of none.
        """
        self._priority_of = priority_of
        self._wanted_kinds = wanted_kinds
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._retired = retired
        self._leaving: set[int | str] = set()
        self._groups: dict[Key, Group] = {}
        self._keys_of: defaultdict[int | str, set[Key]] = defaultdict(set)
        self._ranked: defaultdict[str, list[tuple[Rank, Key]]] = defaultdict(list)
        """Heaps by kind."""
        self._whole: dict[Key, int] = {}
        self._releases: Counter[int | str] = Counter()
        """Whole releases by group: of several only one can be trained."""
        self._whole_by_kind: Counter[str] = Counter()
        """Groups with a whole release."""
        self._drops: list[Drop] = []
        self._duplicates = 0

    @property
    def full(self) -> bool:
        """Further samples are kept as pointers only."""
        return self.held_bytes >= self.max_bytes

    @property
    def whole_groups(self) -> int:
        """Groups that could be trained now; call ``drop_stale`` first."""
        return self._whole_by_kind.total()

    def whole_of(self, kind: str) -> int:
        """Those of one kind."""
        return self._whole_by_kind[kind]

    @property
    def pending_drops(self) -> int:
        """Drops that ``take_drops`` would return."""
        return len(self._drops)

    @property
    def must_tell(self) -> bool:
        """Some dropped group's number is waited for by the conductor."""
        return any(isinstance(identity, int) for identity in self._leaving)

    def __len__(self) -> int:
        """Samples held."""
        return sum(len(group.members) for group in self._groups.values())

    def add(self, sample: Sample) -> None:
        """Take in one event of the ``train`` split."""
        key = (sample.group_id, sample.release_id)
        group = self._groups.get(key)
        if self._gone(sample) or (group is not None and sample.experience_id in group.members):
            self._drop(sample, Cause.DUPLICATE)
            return
        if group is None:
            group = self._groups[key] = Group(*key, sample.number, sample.release_size)
            self._keys_of[_identity(sample)].add(key)
        if sample.payload is not None and self.full:
            sample.payload = None
        group.members[sample.experience_id] = sample
        self.held_bytes += _bytes(sample)
        if group.whole and key not in self._whole:
            self._complete(group)

    def drop_stale(self, version: int, max_staleness: int) -> None:
        """Drop whole groups with a token older than ``version - max_staleness``."""
        stale = [key for key, oldest in self._whole.items() if NOT_WRITTEN != oldest < version - max_staleness]
        for key in stale:
            # Another release of its group may have been as stale, and taken this one with it.
            if key in self._groups:
                self._retire(self._groups[key], Cause.STALE)
        if sum(map(len, self._ranked.values())) > 2 * len(self._whole) + 64:
            for kind, entries in self._ranked.items():
                self._ranked[kind] = [entry for entry in entries if entry[1] in self._whole]
                heapq.heapify(self._ranked[kind])

    def take(self, groups: int, kind: str | None = None) -> list[Group]:
        """Remove and return the first ``groups`` whole groups, of one kind or of any.

        Their other releases are dropped as duplicates.
        """
        taken: list[Group] = []
        while len(taken) < groups:
            heaps = [heap for name, heap in self._ranked.items() if heap and kind in (None, name)]
            _, key = heapq.heappop(min(heaps, key=lambda heap: heap[0]))
            if key not in self._whole:
                continue
            group = self._remove(key)
            taken.append(group)
            self._drop_siblings(group)
            self._drops += [Drop(sample, Cause.FILTERED) for sample in group.members.values() if sample.filtered]
            self._leaving.add(_identity(group))
        return taken

    def take_drops(self) -> tuple[list[Drop], list[int], int]:
        """Drops since the last call, the task numbers retired since (ascending), and how many were duplicates."""
        numbers = sorted(identity for identity in self._leaving if isinstance(identity, int))
        drops, duplicates = self._drops, self._duplicates
        self._drops, self._leaving, self._duplicates = [], set(), 0
        return drops, numbers, duplicates

    def _gone(self, sample: Sample) -> bool:
        return _identity(sample) in self._leaving or self._retired.has(sample.number, sample.experience_id)

    def _complete(self, group: Group) -> None:
        if not group.trainable:
            self._retire(group, Cause.FILTERED)
            return
        if self._wanted_kinds is not None and group.kind not in self._wanted_kinds:
            self._retire(group, Cause.UNWANTED)
            return
        self._whole[group.key] = group.oldest_version
        self._whole_by_kind[group.kind] += not self._releases[_identity(group)]
        self._releases[_identity(group)] += 1
        heapq.heappush(self._ranked[group.kind], (self._rank(group), group.key))

    def _rank(self, group: Group) -> Rank:
        """Lower is trained earlier: priority, then task number (groups without one last), then place in the log."""
        first = min(sample.place for sample in group.members.values())
        return -self._priority_of(group), group.number < 0, group.number, first

    def _retire(self, group: Group, cause: Cause) -> None:
        self._remove(group.key)
        for sample in group.members.values():
            self._drop(sample, Cause.FILTERED if sample.filtered else cause)
        self._drop_siblings(group)
        self._leaving.add(_identity(group))

    def _drop_siblings(self, group: Group) -> None:
        for key in list(self._keys_of.get(_identity(group), ())):
            for sample in self._remove(key).members.values():
                self._drop(sample, Cause.DUPLICATE)

    def _remove(self, key: Key) -> Group:
        group = self._groups.pop(key)
        if self._whole.pop(key, None) is not None:
            self._releases[_identity(group)] -= 1
            if not self._releases[_identity(group)]:
                del self._releases[_identity(group)]
                self._whole_by_kind[group.kind] -= 1
        self.held_bytes -= sum(_bytes(sample) for sample in group.members.values())
        keys = self._keys_of[_identity(group)]
        keys.discard(key)
        if not keys:
            del self._keys_of[_identity(group)]
        return group

    def _drop(self, sample: Sample, cause: Cause) -> None:
        sample.payload = None
        self._duplicates += cause is Cause.DUPLICATE
        self._drops.append(Drop(sample, cause))


def _identity(owner: Group | Sample) -> int | str:
    """What all releases of one group share."""
    return owner.number if owner.number >= 0 else owner.group_id


def _bytes(sample: Sample) -> int:
    return sample.payload.size_bytes if sample.payload is not None else 0
