"""Groups that were trained and may be trained again. Pure.

What is in it, and what comes out, follows from the recorded steps and the newest weight version alone, so a resumed
trainer that folds them again has the same pool: :attr:`Pool.places` go into the checkpoint, later steps are redone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from heapq import nsmallest

from rft.config import BufferConfig
from rft.training.buffer import Group, Key, PriorityOf
from rft.training.sample import Sample
from schemas.events import NOT_WRITTEN


class Pool:
    """Trained groups by kind, each with the times that it was trained (:attr:`Sample.uses`)."""

    def __init__(self, config: BufferConfig, priority_of: PriorityOf, seed: int) -> None:
        self._config = config
        self._priority_of = priority_of
        self._seed = seed
        self._groups: dict[Key, Group] = {}
        self._order: dict[Key, tuple[int, float, bytes]] = {}
        """Lower comes first; made once for each use of a group."""
        self._bytes: dict[Key, int] = {}
        self._kinds: Counter[str] = Counter()
        self.held_bytes = 0
        """Of the arrays that are kept."""
        self._fresh_from: int | None = None

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def places(self) -> list[tuple[int, int, int]]:
        """(partition, offset, times trained) of every sample, in order of places."""
        samples = (sample for group in self._groups.values() for sample in group.members.values())
        return sorted((*sample.place, sample.uses) for sample in samples)

    def trained(self, samples: Iterable[Sample]) -> None:
        """A step was made of these; their ``uses`` are those before it."""
        groups: dict[Key, Group] = {}
        for sample in samples:
            sample.uses += 1
            key = (sample.group_id, sample.release_id)
            if key not in groups:
                groups[key] = Group(*key, sample.number, 0)
            groups[key].members[sample.experience_id] = sample
        self.put(groups.values())

    def put(self, groups: Iterable[Group]) -> None:
        """Keep those that may be trained again, forget the others."""
        for group in groups:
            most = self._config.uses(group.kind)
            self._forget(group.key)
            if most is None or group.uses < most:
                self._groups[group.key] = group
                self._order[group.key] = (group.uses, -self._priority_of(group), self._lot(group))
                self._bytes[group.key] = group.held_bytes
                self._kinds[group.kind] += 1
                self.held_bytes += group.held_bytes

    def restore(self, samples: Iterable[Sample]) -> None:
        """Back from :attr:`places`, whose samples these are."""
        for sample in samples:
            sample.uses -= 1
        self.trained(samples)

    def drop_stale(self, version: int, max_staleness: int) -> None:
        """Forget groups with a token older than ``version - max_staleness``; they were trained, so nobody is told."""
        oldest = version - max_staleness
        # Asked for again and again while the trainer waits; what was put in since was not stale when it was trained.
        if oldest == self._fresh_from:
            return
        self._fresh_from = oldest
        for key in [key for key, group in self._groups.items() if NOT_WRITTEN != group.oldest_version < oldest]:
            self._forget(key)

    def shed(self, max_bytes: int) -> None:
        """Keep arrays of at most so many bytes; the others are fetched again from the log when they are trained."""
        for key in reversed(self._groups):
            if self.held_bytes <= max_bytes:
                return
            for sample in self._groups[key].members.values():
                sample.payload = None
            self.held_bytes -= self._bytes[key]
            self._bytes[key] = 0

    def count(self, kind: str | None) -> int:
        """Groups of that kind, or of any."""
        return len(self._groups) if kind is None else self._kinds[kind]

    def best(self, kind: str | None, count: int) -> list[Group]:
        """Up to ``count`` groups: those trained least often, of these the highest priorities, of these by lot.

        They stay in the pool until the step that they make is recorded.
        """
        of_kind = (key for key, group in self._groups.items() if kind in (None, group.kind))
        return [self._groups[key] for key in nsmallest(count, of_kind, key=self._order.__getitem__)]

    def _forget(self, key: Key) -> None:
        group = self._groups.pop(key, None)
        if group is not None:
            del self._order[key]
            self._kinds[group.kind] -= 1
            self.held_bytes -= self._bytes.pop(key)

    def _lot(self, group: Group) -> bytes:
        """Another order for each further use, the same whenever it is asked for."""
        text = f"{self._seed}/{group.uses}/{group.group_id}/{group.release_id}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()
