"""One partition's waiting groups in as little memory as their encoded notes take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rft.stream.deadline_queue import DeadlineQueue
from schemas.codec import decode, encode
from schemas.events import Waiting


@dataclass(slots=True)
class Unsaved:
    """A group whose newest state is not yet in the changelog."""

    waiting: Waiting
    fresh: bool
    """True when the changelog knows nothing of the group at all."""
    experiences: list[int] = field(default_factory=list)
    """Offsets of the experiences that the changelog does not know of."""
    rewards: list[int] = field(default_factory=list)
    """And of the rewards."""


class WaitingStore:
    """Waiting groups by id. What was changed lies open until it is saved, the rest is packed: a hundred thousand
    experiences are 10 to 25 MB."""

    def __init__(self, members_ms: int, rewards_ms: int) -> None:
        """Times that a group waits for its members and for its rewards."""
        self._packed: dict[bytes, bytes] = {}
        self.unsaved: dict[bytes, Unsaved] = {}
        self.early: dict[bytes, None] = {}
        """Groups that only rewards have come for, oldest first."""
        self.wheels = (DeadlineQueue(members_ms), DeadlineQueue(rewards_ms))
        self._times = (members_ms, rewards_ms)
        self.held = False
        """While True, no deadline counts: what came in time may not have been read yet."""

    def __len__(self) -> int:
        return len(self._packed) + sum(entry.fresh for entry in self.unsaved.values())

    def get(self, key: bytes) -> Waiting | None:
        entry = self.unsaved.get(key)
        if entry is not None:
            return entry.waiting
        packed = self._packed.get(key)
        return None if packed is None else decode(packed, Waiting)

    def put(self, key: bytes, waiting: Waiting) -> Unsaved:
        """Note the group's new state."""
        entry = self.unsaved.get(key)
        if entry is None:
            entry = self.unsaved[key] = Unsaved(waiting, fresh=key not in self._packed)
        entry.waiting = waiting
        return entry

    def restore(self, key: bytes, waiting: Waiting) -> None:
        """Note a state that the changelog holds."""
        self._packed[key] = encode(waiting)

    def schedule(self, key: bytes, since_ms: int) -> None:
        for wheel, wait_ms in zip(self.wheels, self._times, strict=True):
            wheel.add(key, since_ms + wait_ms)

    def take(self, key: bytes) -> tuple[Waiting, Unsaved]:
        """Remove a group; its state, and what of it is unsaved (nothing: an empty entry that is not fresh)."""
        packed, entry = self._packed.pop(key, None), self.unsaved.pop(key, None)
        self.early.pop(key, None)
        if entry is None:
            assert packed is not None
            entry = Unsaved(decode(packed, Waiting), fresh=False)
        return entry.waiting, entry

    def save(self) -> Iterator[tuple[Unsaved, bytes]]:
        """Pack everything that is unsaved; each entry with its bytes."""
        entries, self.unsaved = self.unsaved, {}
        for key, entry in entries.items():
            packed = self._packed[key] = encode(entry.waiting)
            yield entry, packed
