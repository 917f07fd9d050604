"""Keeps track of how far a trainer is in the log: which events are finished and which tasks retired. Pure.

The state is a fold of published TrainingStep events, so a resumed trainer that folds them again arrives at the same
state. Events that were read and neither trained nor dropped are not part of it: they will be read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rft.log.coordinates import Offsets
from rft.tasks.ranges import RangeSet
from schemas.events import TrainingStep

MAX_UNNUMBERED = 100_000
"""Experiences without a task number (recorded or imported ones) remembered by id, the newest ones."""


class Retired:
    """Remembers what must not be trained again: task numbers for ever, unnumbered experiences for a long time."""

    def __init__(self, numbers: RangeSet | None = None, unnumbered: Iterable[str] = ()) -> None:
        self.numbers = numbers if numbers is not None else RangeSet()
        self._unnumbered = dict.fromkeys(unnumbered)

    def has(self, number: int, experience_id: str) -> bool:
        """Return whether this task is retired, or this experience if it has no task number (-1)."""
        return number in self.numbers if number >= 0 else experience_id in self._unnumbered

    def add(self, step: TrainingStep) -> None:
        """Retire what ``step`` retired."""
        self.numbers.update(step.retired)
        for ref in (*step.trained, *step.dropped):
            if ref.number < 0:
                self._unnumbered[ref.experience_id] = None
        while len(self._unnumbered) > MAX_UNNUMBERED:
            del self._unnumbered[next(iter(self._unnumbered))]

    @property
    def unnumbered(self) -> list[str]:
        """Ids, oldest first."""
        return list(self._unnumbered)


class LogProgress:
    """Holds the finished events of each partition of ``ready``, and what is retired."""

    def __init__(
        self,
        begins: Offsets,
        *,
        finished: Mapping[int, RangeSet] | None = None,
        retired: Retired | None = None,
    ) -> None:
        """``begins`` is the first offset to read, by partition; reading starts at the first unfinished one."""
        self.begins = dict(begins)
        self.retired = retired if retired is not None else Retired()
        self._finished = {partition: RangeSet() for partition in begins} | dict(finished or {})
        self._next = self.positions

    def add_partitions(self, begins: Offsets) -> None:
        """Read the partitions that the topic has gained from ``begins`` on."""
        for partition, begin in begins.items():
            if partition not in self.begins:
                self.begins[partition] = self._next[partition] = begin
                self._finished.setdefault(partition, RangeSet())

    def note_read(self, partition: int, offset: int) -> bool:
        """Note that an event was read, in order within its partition, and return False if it is finished already.

        Offsets that the log has skipped (transaction markers) hold no event and count as finished.
        """
        expected = self._next[partition]
        if offset > expected:
            self._finished[partition].add_range(expected, offset)
        self._next[partition] = max(expected, offset + 1)
        return offset not in self._finished[partition]

    def finish(self, partition: int, offset: int) -> None:
        """Mark an event as finished that needs no TrainingStep because it is not for training."""
        self._finished[partition].add(offset)

    def apply(self, step: TrainingStep) -> None:
        """Mark the events of ``step``, which is on the log, as finished."""
        for ref in (*step.trained, *step.dropped):
            self._finished.setdefault(ref.partition, RangeSet()).add(ref.offset)
        self.retired.add(step)

    def rewind(self) -> None:
        """Start reading again at ``positions``."""
        self._next = self.positions

    @property
    def positions(self) -> dict[int, int]:
        """Next offset to read by partition: the lowest that is not finished."""
        return {p: self._finished[p].first_missing(begin) for p, begin in self.begins.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values. It includes the positions, for people and tools."""
        return {
            "positions": {str(p): offset for p, offset in self.positions.items()},
            "begins": {str(p): offset for p, offset in self.begins.items()},
            "finished": {str(p): ranges.to_list() for p, ranges in self._finished.items()},
            "retired_numbers": self.retired.numbers.to_list(),
            "retired_unnumbered": self.retired.unnumbered,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> LogProgress:
        """Undo :meth:`to_json`. Raises KeyError or ValueError for a damaged state."""
        return cls(
            {int(p): int(offset) for p, offset in state["begins"].items()},
            finished={int(p): RangeSet.from_list(ranges) for p, ranges in state["finished"].items()},
            retired=Retired(RangeSet.from_list(state["retired_numbers"]), state["retired_unnumbered"]),
        )
