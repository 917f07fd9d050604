"""A step's groups out of new ones and ones to be trained again, in the mixture that is asked for. Pure."""

from __future__ import annotations

from rft.config import BufferConfig
from rft.training.buffer import Group, GroupBuffer
from rft.training.pool import Pool

REPLAY = "replay"
ROLLOUT = "rollout"


class Assembly:
    """Decides whether a step is possible, and of what."""

    def __init__(self, config: BufferConfig, groups_per_step: int, buffer: GroupBuffer, pool: Pool) -> None:
        self._groups_per_step = groups_per_step
        self._shares = config.shares(groups_per_step)
        self._buffer = buffer
        self._pool = pool

    def possible(self) -> bool:
        """Whether all that a step waits for is there."""
        if not self._shares:
            return self._buffer.whole_groups + self._pool.count(None) >= self._groups_per_step
        return all(self._available(source) >= count for source, count in self._shares.items() if source != REPLAY)

    def repeats(self) -> bool:
        """Whether a step, now, would train groups again for want of new ones, where nothing says how many to replay."""
        return not self._shares and self._buffer.whole_groups < self._groups_per_step

    def take(self) -> list[Group]:
        """The groups of a step that is possible. New ones leave the buffer; the others stay in the pool until told."""
        if not self._shares:
            fresh = self._buffer.take(min(self._groups_per_step, self._buffer.whole_groups))
            return fresh + self._pool.best(None, self._groups_per_step - len(fresh))
        taken: list[Group] = []
        for source, count in sorted(self._shares.items()):
            if source == REPLAY:
                taken += self._pool.best(ROLLOUT, count)
                continue
            fresh = self._buffer.take(min(count, self._buffer.whole_of(source)), source)
            again = [] if source == ROLLOUT else self._pool.best(source, count - len(fresh))
            taken += fresh + again
        return taken

    def _available(self, source: str) -> int:
        whole = self._buffer.whole_of(source)
        return whole if source == ROLLOUT else whole + self._pool.count(source)
