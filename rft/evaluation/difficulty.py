"""Sorts the tasks of a set into difficulty classes, by their metadata or by their first evaluation. Pure."""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

MOST_VALUES = 8
"""Numbers with more distinct values than this are put into :data:`BINS` classes of about equal size."""
BINS = 4
UNKNOWN = "unknown"
"""Class of a task whose difficulty is not known."""
FIRST_TIME = ("never solved", "solved in under half", "solved in half or more", "always solved")
"""Classes by the share of right answers in the set's first evaluation, hardest first."""


@dataclass(frozen=True, slots=True)
class DifficultyClasses:
    """The classes of a set. They are the same for all its evaluations."""

    by: str
    """What the classes are based on, for people."""
    path: str | None = None
    """Path of the value in the tasks' metadata; None if classes are by the first evaluation."""
    first: Mapping[int, float] = field(default_factory=dict)
    """Share of right answers in the first evaluation, by task number."""
    edges: tuple[float, ...] = ()
    """Lower bounds of all bins but the first; empty if values are not binned."""
    names: tuple[str, ...] = ()
    """Names of the classes, in order."""

    @classmethod
    def from_metadata(cls, path: str, metadata: Iterable[str]) -> DifficultyClasses:
        """Make classes of the values at ``path`` (``a.b`` for nested keys) in the tasks' JSON ``metadata``."""
        values = [value for value in (value_at(text, path) for text in metadata) if value is not None]
        numbers = sorted(float(value) for value in values if _is_number(value))
        distinct = sorted(set(numbers))
        if len(numbers) == len(values) and len(distinct) > MOST_VALUES:
            edges = tuple(sorted({numbers[len(numbers) * part // BINS] for part in range(1, BINS)} - {distinct[0]}))
            bounds = (distinct[0], *edges, distinct[-1])
            names = tuple(
                f"{low:g} to {high:g}" if high == bounds[-1] else f"{low:g} to below {high:g}"
                for low, high in pairwise(bounds)
            )
            return cls(path, path, edges=edges, names=names)
        if len(numbers) == len(values):
            return cls(path, path, names=tuple(f"{value:g}" for value in distinct))
        return cls(path, path, names=tuple(sorted({str(value) for value in values})))

    @classmethod
    def from_first_evaluation(cls, shares: Mapping[int, float]) -> DifficultyClasses:
        """Make classes of the ``shares`` of right answers, by task number, in the set's first evaluation."""
        return cls("first evaluation", first=dict(shares), names=FIRST_TIME)

    def class_of(self, number: int, metadata: str) -> str:
        """Return the class of the task with this number and JSON metadata."""
        if self.path is None:
            share = self.first.get(number)
            if share is None:
                return UNKNOWN
            return FIRST_TIME[0 if share == 0 else 3 if share == 1 else 1 if share < 0.5 else 2]
        value = value_at(metadata, self.path)
        if value is None:
            return UNKNOWN
        if self.edges:
            return self.names[bisect.bisect_right(self.edges, float(value))] if _is_number(value) else UNKNOWN
        name = f"{float(value):g}" if _is_number(value) else str(value)
        return name if name in self.names else UNKNOWN

    def rank(self, name: str) -> int:
        """Return the rank of a class, for sorting. Unknown classes come last."""
        return self.names.index(name) if name in self.names else len(self.names)


def value_at(metadata: str, path: str) -> str | int | float | None:
    """Return the value at ``path`` of a JSON object; None if there is none, or it is not a string or a number."""
    try:
        value: Any = json.loads(metadata)
    except ValueError:
        return None
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value if isinstance(value, (str, int, float)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
