"""Assembles the groups of a step from new groups and groups to be trained again, in the configured mixture. Pure."""

from __future__ import annotations

from rft.config import BufferConfig
from rft.training.buffer import GroupBuffer
from rft.training.reuse_pool import ReusePool
from rft.training.sample_group import SampleGroup

REPLAY = "replay"
ROLLOUT = "rollout"


class StepAssembly:
    """Decides whether a step is possible, and which groups it has."""

    def __init__(self, config: BufferConfig, groups_per_step: int, buffer: GroupBuffer, pool: ReusePool) -> None:
        self._groups_per_step = groups_per_step
        self._shares = config.shares(groups_per_step)
        self._buffer = buffer
        self._pool = pool

    def possible(self) -> bool:
        """Return whether everything that a step waits for is there."""
        if not self._shares:
            return self._buffer.whole_groups + self._pool.count(None) >= self._groups_per_step
        return all(self._available(source) >= count for source, count in self._shares.items() if source != REPLAY)

    def describe(self) -> str:
        """Return what of a step is there, such as ``has 3 of 8 groups``."""
        if not self._shares:
            return f"has {self._buffer.whole_groups + self._pool.count(None)} of {self._groups_per_step} groups"
        shares = sorted((source, count) for source, count in self._shares.items() if source != REPLAY)
        return "has " + ", ".join(f"{self._available(source)} of {count} {source} groups" for source, count in shares)

    def repeats(self) -> bool:
        """Return whether a step, taken now, would fill up with groups that were trained before.

        With ``buffer.mix`` it is False: the mixture decides how many are trained again.
        """
        return not self._shares and self._buffer.whole_groups < self._groups_per_step

    def take(self) -> list[SampleGroup]:
        """Return the groups of a step that is possible.

        New groups leave the buffer. The others stay in the pool until the step is recorded.
        """
        if not self._shares:
            new = self._buffer.take(min(self._groups_per_step, self._buffer.whole_groups))
            return new + self._pool.best(None, self._groups_per_step - len(new))
        taken: list[SampleGroup] = []
        for source, count in sorted(self._shares.items()):
            if source == REPLAY:
                taken += self._pool.best(ROLLOUT, count)
                continue
            new = self._buffer.take(min(count, self._buffer.whole_groups_of(source)), source)
            again = [] if source == ROLLOUT else self._pool.best(source, count - len(new))
            taken += new + again
        return taken

    def _available(self, source: str) -> int:
        whole = self._buffer.whole_groups_of(source)
        return whole if source == ROLLOUT else whole + self._pool.count(source)
