"""Computes how fast explorers write tokens and how long their rollouts are, from their announcements. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from schemas.events import Member

WINDOW_MS = 10_000
SILENT_MS = 30_000
"""An explorer that was killed announces nothing any more."""
MOST_EXPLORERS = 1000


@dataclass(frozen=True, slots=True)
class _Counters:
    at_ms: int
    tokens: float
    rollouts: float


class GenerationRate:
    """Sums over the explorers' counters. Those of a process that is started again begin at 0."""

    def __init__(self) -> None:
        self._explorers: dict[tuple[str, str], deque[_Counters]] = {}

    def feed(self, member: Member) -> None:
        """Take in an announcement."""
        name = member.member_id, member.address
        if member.role != "explorer" or (name not in self._explorers and len(self._explorers) >= MOST_EXPLORERS):
            return
        if member.state == "left":
            self._explorers.pop(name, None)
            return
        counters = self._explorers.setdefault(name, deque())
        stats = member.stats
        counters.append(_Counters(member.heartbeat_at, stats.get("tokens", 0.0), stats.get("rollouts", 0.0)))
        while len(counters) > 2 and counters[-1].at_ms - counters[1].at_ms >= WINDOW_MS:
            counters.popleft()

    @property
    def tokens_per_s(self) -> float:
        """Tokens that the policy wrote in a second, over the newest ten seconds of each explorer."""
        spans = [(first, last) for first, last in self._spans() if last.at_ms > first.at_ms]
        return sum(max(0.0, last.tokens - first.tokens) / (last.at_ms - first.at_ms) * 1000 for first, last in spans)

    @property
    def response_tokens(self) -> float | None:
        """Mean number of tokens that the policy wrote in a rollout, lately; None before the first."""
        spans = self._spans()
        rollouts = sum(max(0.0, last.rollouts - first.rollouts) for first, last in spans)
        tokens = sum(max(0.0, last.tokens - first.tokens) for first, last in spans)
        return tokens / rollouts if rollouts else None

    def _spans(self) -> list[tuple[_Counters, _Counters]]:
        """Return the oldest and newest counters of each explorer that is still there."""
        newest_ms = max((counters[-1].at_ms for counters in self._explorers.values()), default=0)
        return [(one[0], one[-1]) for one in self._explorers.values() if newest_ms - one[-1].at_ms < SILENT_MS]
