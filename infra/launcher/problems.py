"""Says what goes wrong in a run, from the notes of its roles and from its steps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rft.telemetry.notes import Kind, Level, Note, kind_of

MOST_PRINTED = 60
"""Lines about problems that a run prints where there is no live view. Further kinds are only in the summary."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A warning or an error of one role."""

    role: str
    level: Level
    text: str
    """One printable line."""
    count: int
    last: float
    """Unix time of the newest one."""

    def __str__(self) -> str:
        """``error, processor-0: … (412 times)``."""
        return f"{self.level}, {self.role}: {self.text}{self.times}"

    @property
    def times(self) -> str:
        """Return how often it came, in brackets; empty for once."""
        return f" ({self.count:,} times)" if self.count > 1 else ""


def problems(notes: Mapping[str, Sequence[Note]], further: Iterable[Problem] = ()) -> list[Problem]:
    """Return all problems, errors first, then the newest first."""
    found = [Problem(role, note.level, note.text, note.count, note.last) for role in notes for note in notes[role]]
    return sorted([*found, *further], key=lambda problem: (problem.level != "error", -problem.last))


class NewProblems:
    """Picks the problems that were not there before: each kind of each role once."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, Kind]] = set()

    def take(self, found: Iterable[Problem]) -> list[Problem]:
        """Return the new ones, oldest first."""
        new = []
        for problem in sorted(found, key=lambda one: one.last):
            kind = problem.role, kind_of(problem.level, problem.text)
            if kind not in self._seen and len(self._seen) < MOST_PRINTED:
                self._seen.add(kind)
                new.append(problem)
        return new


def beside(reason: str, found: Iterable[Problem]) -> list[Problem]:
    """Return the problems that are not already told in the reason for the run's end."""
    return [problem for problem in found if problem.text not in reason]
