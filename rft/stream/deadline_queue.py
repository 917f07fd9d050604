"""Deadlines of very many things in little memory: about 8 bytes each."""

from __future__ import annotations

BUCKETS = 1000
"""Buckets in one time to live: a deadline is met at most a thousandth of it late, and never early."""


class DeadlineQueue:
    """Keys by the time that they are due, in buckets of time."""

    def __init__(self, lifetime_ms: int) -> None:
        self._width = max(1, lifetime_ms // BUCKETS)
        self._buckets: dict[int, list[bytes]] = {}

    def add(self, key: bytes, due_ms: int) -> None:
        self._buckets.setdefault(due_ms // self._width, []).append(key)

    def pop(self, now_ms: int) -> bytes | None:
        """A key that is due, the earliest first; None when there is none."""
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
