"""Stores a set of integers, such as the numbers of retired tasks, as ranges in a few bytes.

Tasks are numbered from 0 and retire nearly in order, so the set is one long range and a few short ones, however long
the run is. Membership and insertion cost O(log ranges).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """A mutable set of integers, stored as sorted, disjoint, non-adjacent half-open ranges."""

    __slots__ = ("_size", "_starts", "_stops")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._size = 0
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> bool:
        """Add ``number``; return False if it was in the set already."""
        at = bisect_right(self._starts, number)
        if at and number < self._stops[at - 1]:
            return False
        touches_left = at > 0 and self._stops[at - 1] == number
        touches_right = at < len(self._starts) and self._starts[at] == number + 1
        if touches_left and touches_right:
            self._stops[at - 1] = self._stops.pop(at)
            del self._starts[at]
        elif touches_left:
            self._stops[at - 1] = number + 1
        elif touches_right:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._stops.insert(at, number + 1)
        self._size += 1
        return True

    def add_range(self, start: int, stop: int) -> None:
        """Add all numbers from ``start`` to ``stop - 1``."""
        if start >= stop:
            return
        left = bisect_left(self._stops, start)
        right = bisect_right(self._starts, stop)
        self._size -= sum(b - a for a, b in zip(self._starts[left:right], self._stops[left:right], strict=True))
        if left < right:
            start, stop = min(start, self._starts[left]), max(stop, self._stops[right - 1])
        self._starts[left:right], self._stops[left:right] = [start], [stop]
        self._size += stop - start

    def update(self, numbers: Iterable[int]) -> int:
        """Add all ``numbers``; return how many were new."""
        return sum(self.add(number) for number in numbers)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number)
        return at > 0 and number < self._stops[at - 1]

    def __iter__(self) -> Iterator[int]:
        """Iterate over all numbers, ascending."""
        for start, stop in self.ranges():
            yield from range(start, stop)

    def __len__(self) -> int:
        """Return how many numbers the set holds."""
        return self._size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"RangeSet.from_list({self.to_list()})"

    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges as (start, stop), stop exclusive, ascending."""
        return list(zip(self._starts, self._stops, strict=True))

    def first_missing(self, start: int = 0) -> int:
        """Return the lowest number from ``start`` on that is not in the set."""
        at = bisect_right(self._starts, start)
        return self._stops[at - 1] if at and start < self._stops[at - 1] else start

    def copy(self) -> RangeSet:
        """Return an independent copy."""
        return RangeSet.from_list(self.to_list())

    def to_list(self) -> list[list[int]]:
        """Return the ranges for JSON: ``[[start, stop], …]``, stop exclusive."""
        return [[start, stop] for start, stop in self.ranges()]

    @classmethod
    def from_list(cls, ranges: Iterable[Iterable[int]]) -> RangeSet:
        """Undo :meth:`to_list`. Raises ValueError if ranges are empty, unsorted, overlapping or touching."""
        result = cls()
        for start, stop in ranges:
            if start >= stop or (result._stops and start <= result._stops[-1]):
                raise ValueError(f"range [{start}, {stop}) is empty or not beyond its predecessor")
            result._starts.append(start)
            result._stops.append(stop)
            result._size += stop - start
        return result
