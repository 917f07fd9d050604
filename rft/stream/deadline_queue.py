"""Keeps the deadlines of very many keys in little memory: about 8 bytes each."""

from __future__ import annotations

BUCKETS = 1000
"""Buckets in one time to live: a key is popped at most a thousandth of its lifetime late, and never early."""


class DeadlineQueue:
    """Holds keys in buckets of time by their deadline."""

    def __init__(self, lifetime_ms: int) -> None:
        self._width = max(1, lifetime_ms // BUCKETS)
        self._buckets: dict[int, list[bytes]] = {}

    def add(self, key: bytes, deadline_ms: int) -> None:
        """Add a key; one key may have several deadlines."""
        self._buckets.setdefault(deadline_ms // self._width, []).append(key)

    def pop(self, now_ms: int) -> bytes | None:
        """Remove and return a key whose deadline has passed, from the earliest bucket; None when there is none."""
        if not self._buckets:
            return None
        first = min(self._buckets)
        if (first + 1) * self._width > now_ms:
            return None
        keys = self._buckets[first]
        key = keys.pop()
        if not keys:
            del self._buckets[first]
        return key
