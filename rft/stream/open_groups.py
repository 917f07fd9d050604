"""Keeps groups in memory until all their samples have come. No external rewards are involved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from rft.config import ProcessorConfig
from rft.stream.actions import Action, Publish, Resolve
from rft.stream.dedupe import ReleasedGroups
from rft.stream.pending_sample import PendingSample
from rft.stream.release import GroupPublisher
from rft.stream.sample_rows import SampleRows, known_ids, place
from rft.stream.validate import check_group_size
from schemas.events import Experience


@dataclass(slots=True)
class OpenGroup:
    """Holds the samples of one group that have come so far."""

    group_id: str
    partition: int
    size: int
    """Samples that the group is to have, as its first sample says."""
    deadline_ms: int
    spare: int
    """Samples that it need not wait for if the others did not fail."""
    samples: dict[str, SampleRows] = field(default_factory=dict)
    """By :attr:`~schemas.events.Experience.sample_id`, in order of arrival."""

    @property
    def whole(self) -> bool:
        """True when all rows of all samples have come."""
        return len(self.samples) >= self.size and sum(one.complete for one in self.samples.values()) >= self.size

    @property
    def complete(self) -> bool:
        """True when the group waits for no more samples."""
        if self.whole or not self.spare:
            return self.whole
        good = sum(one.complete and not one.failed for one in self.samples.values())
        return good >= self.size - self.spare

    @property
    def size_bytes(self) -> int:
        return sum(sample.size_bytes for sample in self.samples.values())


class OpenGroups:
    """Releases a group when it is complete, when its deadline has passed, or early when memory runs short.

    A :class:`~rft.stream.pipeline.GroupKeeper`. Groups are held oldest first; all have the same time to live, so age is
    deadline order.
    """

    def __init__(
        self, config: ProcessorConfig, released: ReleasedGroups, publisher: GroupPublisher, counts: Counter[str]
    ) -> None:
        self._time_to_live_ms = int(config.group_deadline_s * 1000)
        self._max_bytes = int(config.buffer_mb * 1024 * 1024)
        self._released = released
        self._publisher = publisher
        self._counts = counts
        self._groups: dict[tuple[int, str], OpenGroup] = {}
        self.size_bytes = 0
        """Size of all pending samples' events."""

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[OpenGroup]:
        return iter(self._groups.values())

    def check(self, partition: int, experience: Experience) -> None:
        """Check that the experience agrees with its group. Raises DecodeError."""
        group = self._groups.get((partition, experience.group_id))
        if group is not None:
            check_group_size(experience, group.size)

    def repetition(self, partition: int, offset: int, experience: Experience) -> Literal["duplicate", "late"] | None:
        """Return why the experience has nothing left to do; None when it is to be added."""
        group = self._groups.get((partition, experience.group_id))
        if group is None:
            return self._released.repetition(experience.group_id, experience.experience_id, experience.sample_id)
        sample = group.samples.get(experience.sample_id)
        return "duplicate" if sample is not None and place(sample.held, experience, offset) == "duplicate" else None

    def add(self, sample: PendingSample, published_ms: int, now_ms: int) -> list[Action]:
        """Add a sample to its group. The group's deadline counts from ``now_ms`` if the sample is its first one."""
        experience = sample.experience
        key = (sample.partition, experience.group_id)
        group = self._groups.get(key)
        if group is None:
            deadline_ms = now_ms + self._time_to_live_ms
            group = OpenGroup(
                experience.group_id, sample.partition, experience.group_size, deadline_ms, experience.spare
            )
            self._groups[key] = group
        actions = self._put(group, sample)
        self.size_bytes += sample.size_bytes
        if group.complete:
            actions.append(self._release(group, now_ms))
        return actions + self._release_beyond_memory(now_ms)

    def tick(self, now_ms: int) -> list[Action]:
        """Release the groups whose deadline has passed, oldest first."""
        expired: list[OpenGroup] = []
        for group in self:
            if group.deadline_ms > now_ms:
                break
            expired.append(group)
        self._counts["expired"] += len(expired)
        return [self._release(group, now_ms) for group in expired]

    def restart_deadlines(self, now_ms: int) -> None:
        """Let the deadlines of all open groups count from ``now_ms``."""
        for group in self:
            group.deadline_ms = now_ms + self._time_to_live_ms

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop all groups of revoked partitions without publishing them: their next owner gets the events again."""
        revoked = set(partitions)
        dropped = [group for group in self if group.partition in revoked]
        for group in dropped:
            self._remove(group)
        self._counts["forgotten"] += len(dropped)

    def _put(self, group: OpenGroup, sample: PendingSample) -> list[Action]:
        """Add a row to its sample. The rows of an earlier try, which broke off, are duplicates then."""
        name = sample.experience.sample_id
        rows = group.samples.get(name)
        replaced: list[PendingSample] = []
        if rows is not None and place(rows.held, sample.experience, sample.offset) == "replace":
            replaced = list(rows.rows.values())
            rows = None
        if rows is None:
            rows = group.samples[name] = SampleRows()
        rows.rows[sample.experience.row] = sample
        self.size_bytes -= sum(one.size_bytes for one in replaced)
        self._counts["duplicate"] += len(replaced)
        return [Resolve(one.partition, one.offset, "duplicate") for one in replaced]

    def _release_beyond_memory(self, now_ms: int) -> list[Action]:
        """Release the oldest groups early while all samples together take more memory than allowed."""
        actions: list[Action] = []
        while self.size_bytes > self._max_bytes and (oldest := next(iter(self), None)) is not None:
            self._counts["early"] += 1
            actions.append(self._release(oldest, now_ms))
        return actions

    def _release(self, group: OpenGroup, now_ms: int) -> Publish:
        rows = [row for sample in group.samples.values() for row in sample.finished()]
        publish = self._publisher.publish(group.partition, group.group_id, rows, now_ms)
        self._remove(group)
        self._released.add(group.group_id, known_ids(group.samples), whole=group.whole)
        return publish

    def _remove(self, group: OpenGroup) -> None:
        del self._groups[group.partition, group.group_id]
        self.size_bytes -= group.size_bytes
