"""Holds groups that were trained and may be trained again. Pure.

What the pool holds, and in which order it is used, follows from the recorded steps and the newest weight version alone.
A checkpoint keeps :attr:`ReusePool.positions`. A resumed trainer restores them and adds the steps that it redoes, so it
arrives at the same pool.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from heapq import nsmallest

from rft.config import BufferConfig
from rft.log.coordinates import ReusePosition
from rft.training.sample import Sample
from rft.training.sample_group import PriorityOf, ReleaseKey, SampleGroup
from schemas.events import NOT_WRITTEN


class ReusePool:
    """Trained groups by kind. Each of their samples counts how often it was trained (:attr:`Sample.uses`)."""

    def __init__(self, config: BufferConfig, priority_of: PriorityOf, seed: int) -> None:
        """Start empty. ``seed`` is ``run.seed`` and decides the order among groups of equal priority."""
        self._config = config
        self._priority_of = priority_of
        self._seed = seed
        self._groups: dict[ReleaseKey, SampleGroup] = {}
        self._order: dict[ReleaseKey, tuple[int, float, bytes]] = {}
        """Sorts groups, lowest first. Computed once for each use of a group."""
        self._bytes: dict[ReleaseKey, int] = {}
        self._kinds: Counter[str] = Counter()
        self.held_bytes = 0
        """Bytes of the arrays that are held."""
        self._dropped_before: int | None = None
        """Groups older than this version were dropped, and none was put in since."""

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._groups)

    @property
    def positions(self) -> list[ReusePosition]:
        """The position of every sample, and how often it was trained, in ascending order."""
        samples = (sample for group in self._groups.values() for sample in group.samples.values())
        return sorted(ReusePosition(*sample.position, sample.uses) for sample in samples)

    def add_trained(self, samples: Iterable[Sample]) -> None:
        """Add the samples of a step that was taken. Their ``uses`` are as before the step and are increased here."""
        groups: dict[ReleaseKey, SampleGroup] = {}
        for sample in samples:
            sample.uses += 1
            key = (sample.group_id, sample.release_id)
            if key not in groups:
                groups[key] = SampleGroup(*key, sample.number, 0)
            groups[key].samples[sample.experience_id] = sample
        self.put(groups.values())

    def put(self, groups: Iterable[SampleGroup]) -> None:
        """Hold the groups that may be trained again, forget the others."""
        self._dropped_before = None
        for group in groups:
            most = self._config.uses(group.kind)
            self._forget(group.key)
            if most is None or group.uses < most:
                self._groups[group.key] = group
                self._order[group.key] = (group.uses, -self._priority_of(group), self._tie_breaker(group))
                self._bytes[group.key] = group.held_bytes
                self._kinds[group.kind] += 1
                self.held_bytes += group.held_bytes

    def restore(self, samples: Iterable[Sample]) -> None:
        """Add the samples at the :attr:`positions` of a checkpoint, with their ``uses``."""
        for sample in samples:
            sample.uses -= 1
        self.add_trained(samples)

    def drop_stale(self, version: int, max_staleness: int) -> None:
        """Forget groups with a token older than ``version - max_staleness``.

        They were trained, so no drop is reported.
        """
        oldest = version - max_staleness
        # Called again and again while the trainer waits.
        if oldest == self._dropped_before:
            return
        self._dropped_before = oldest
        for key in [key for key, group in self._groups.items() if NOT_WRITTEN != group.oldest_version < oldest]:
            self._forget(key)

    def trim(self, max_bytes: int) -> None:
        """Release arrays until at most ``max_bytes`` are held. They are fetched again when their group is trained."""
        for key in reversed(self._groups):
            if self.held_bytes <= max_bytes:
                return
            for sample in self._groups[key].samples.values():
                sample.payload = None
            self.held_bytes -= self._bytes[key]
            self._bytes[key] = 0

    def count(self, kind: str | None) -> int:
        """Return the number of groups of that kind; None: of any."""
        return len(self._groups) if kind is None else self._kinds[kind]

    def best(self, kind: str | None, count: int) -> list[SampleGroup]:
        """Return up to ``count`` groups of that kind; None: of any.

        Groups that were trained least often come first, then those of the highest priority, then in a random order that
        the seed decides. They stay in the pool until the step that they make is recorded.
        """
        of_kind = (key for key, group in self._groups.items() if kind in (None, group.kind))
        return [self._groups[key] for key in nsmallest(count, of_kind, key=self._order.__getitem__)]

    def _forget(self, key: ReleaseKey) -> None:
        group = self._groups.pop(key, None)
        if group is not None:
            del self._order[key]
            self._kinds[group.kind] -= 1
            self.held_bytes -= self._bytes.pop(key)

    def _tie_breaker(self, group: SampleGroup) -> bytes:
        """Return random bytes that differ for each use of a group and are the same after a restart."""
        text = f"{self._seed}/{group.uses}/{group.group_id}/{group.release_id}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()
