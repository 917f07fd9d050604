"""Stores one partition's waiting groups in as little memory as their encoded records take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rft.stream.deadline_queue import DeadlineQueue
from schemas.codec import decode, encode
from schemas.events import Waiting


@dataclass(slots=True)
class DirtyGroup:
    """Holds a group whose newest state is not yet in the changelog."""

    waiting: Waiting
    new: bool
    """True when the changelog does not contain the group at all."""
    experiences: list[int] = field(default_factory=list)
    """Offsets in ``experiences`` of the events that the changelog does not contain."""
    rewards: list[int] = field(default_factory=list)
    """Offsets in ``rewards`` of the events that the changelog does not contain."""


class WaitingStore:
    """Maps group ids to waiting groups. Changed groups stay decoded until they are flushed, the others are encoded: a
    hundred thousand experiences take 10 to 25 MB."""

    def __init__(self, samples_ms: int, rewards_ms: int, *, deadlines_paused: bool = False) -> None:
        """Create an empty store.

        Args:
            samples_ms: How long a group waits for its samples.
            rewards_ms: How long it waits for its rewards.
            deadlines_paused: Whether no deadline counts yet because events that came in time may still be unread.
        """
        self._encoded: dict[bytes, bytes] = {}
        self._lifetimes_ms = (samples_ms, rewards_ms)
        self.dirty: dict[bytes, DirtyGroup] = {}
        self.reward_only: dict[bytes, None] = {}
        """Groups of which only rewards have come, oldest first."""
        self.deadlines = (DeadlineQueue(samples_ms), DeadlineQueue(rewards_ms))
        self.deadlines_paused = deadlines_paused

    def __len__(self) -> int:
        return len(self._encoded) + sum(group.new for group in self.dirty.values())

    def keys(self) -> Iterator[bytes]:
        """Yield the ids of the groups, in no order."""
        yield from self._encoded
        yield from (key for key, group in self.dirty.items() if group.new)

    def get(self, key: bytes) -> Waiting | None:
        dirty = self.dirty.get(key)
        if dirty is not None:
            return dirty.waiting
        encoded = self._encoded.get(key)
        return None if encoded is None else decode(encoded, Waiting)

    def put(self, key: bytes, waiting: Waiting) -> DirtyGroup:
        """Replace the group's state. The caller adds the offset that changed it to the returned entry."""
        dirty = self.dirty.get(key)
        if dirty is None:
            dirty = self.dirty[key] = DirtyGroup(waiting, new=key not in self._encoded)
        dirty.waiting = waiting
        return dirty

    def restore(self, key: bytes, waiting: Waiting) -> None:
        """Add a group as the changelog contains it."""
        self._encoded[key] = encode(waiting)

    def schedule(self, key: bytes, since_ms: int) -> None:
        """Set both deadlines of a group that waits since ``since_ms``."""
        for queue, lifetime_ms in zip(self.deadlines, self._lifetimes_ms, strict=True):
            queue.add(key, since_ms + lifetime_ms)

    def resume_deadlines(self) -> None:
        self.deadlines_paused = False

    def remove(self, key: bytes) -> DirtyGroup:
        """Remove a group and return its state. A group that was flushed is returned without offsets."""
        encoded, dirty = self._encoded.pop(key, None), self.dirty.pop(key, None)
        self.reward_only.pop(key, None)
        if dirty is None:
            assert encoded is not None
            dirty = DirtyGroup(decode(encoded, Waiting), new=False)
        return dirty

    def flush(self) -> Iterator[tuple[DirtyGroup, bytes]]:
        """Encode every dirty group, and yield each with its bytes for the changelog."""
        groups, self.dirty = self.dirty, {}
        for key, group in groups.items():
            encoded = self._encoded[key] = encode(group.waiting)
            yield group, encoded
