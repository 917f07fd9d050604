"""Decides whether a step waits for groups that are still rolled out and would be too stale after it. Pure.

A group can be trained up to a last version: its oldest token's plus ``max_staleness``. Of a group that is not here yet,
the task's lowest weight version stands for that of the oldest token. If a step leaves more groups behind than the steps
up to their last version can train, one of them becomes too stale. So it waits, unless its own groups are as urgent.

The conductor's bound on groups in flight leaves room for all of them if each step takes the most urgent groups first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HoldPace:
    """What decides how many groups are trained at each version."""

    groups_per_step: int
    """Groups of a step that are rolled out for it."""
    sync_interval: int
    max_staleness: int
    limit_s: float
    """How long a step may wait. Nothing waits a second time for the groups that it then leaves behind."""


class StepHold:
    """Knows the tasks that are issued. Their events may come repeatedly and in any order."""

    def __init__(self, pace: HoldPace) -> None:
        self._pace = pace
        self._issued: dict[int, int] = {}
        """Lowest weight version of each task by number, as far as it is not known to have come."""
        self._step = (-1, 0)
        """Version of the next step, and further steps at that version."""
        self._waits_since: float | None = None
        """Since when the next step waits."""

    def saw_task(self, number: int, min_version: int) -> None:
        """Note that a task is on the log. Numbers below 0 are those of tasks that no conductor paces."""
        if number >= 0:
            self._issued[number] = min_version

    def awaited(
        self,
        version: int,
        steps_left: int,
        oldest: Iterable[int],
        has_come: Callable[[int], bool],
        now_s: float,
    ) -> list[int]:
        """Return the tasks that the next step waits for, the most urgent first; none if it is to be taken now.

        Args:
            version: newest weight version.
            steps_left: further steps at this version, after the next one.
            oldest: oldest versions of the groups of rollouts that could be trained now.
            has_come: says whether a task's group could be trained, or was trained or dropped.
            now_s: time in seconds, from a clock that never runs backwards.
        """
        pace = self._pace
        for number in [number for number in self._issued if has_come(number)]:
            del self._issued[number]
        if (version, steps_left) != self._step:
            self._step, self._waits_since = (version, steps_left), None
        lasts = ((minimal + pace.max_staleness, number) for number, minimal in self._issued.items())
        # What is older was left behind by an earlier step.
        missing = sorted(one for one in lasts if one[0] >= version)
        here = sorted(written + pace.max_staleness for written in oldest)
        last = self._last_to_wait_for(version, steps_left, here, [one for one, _ in missing])
        if last is None:
            return []
        awaited = [number for one, number in missing if one <= last]
        if self._waits_since is None:
            self._waits_since = now_s
        if now_s - self._waits_since < pace.limit_s:
            return awaited
        for number in awaited:
            del self._issued[number]
        return []

    def _last_to_wait_for(
        self, version: int, steps_left: int, here: Sequence[int], missing: Sequence[int]
    ) -> int | None:
        """Return up to which last version the missing groups must come first; None if the step is to be taken.

        ``here`` and ``missing`` are last versions of groups, in ascending order. The step takes the first of ``here``.
        """
        pace = self._pace
        step, later = here[: pace.groups_per_step], here[pace.groups_per_step :]
        found = None
        for last in sorted(set(missing)):
            room = pace.groups_per_step * (steps_left + pace.sync_interval * (last - version))
            behind = bisect_right(missing, last) + bisect_right(later, last)
            # If the whole step is as urgent, waiting helps nobody.
            if behind > room and step and step[-1] > last:
                found = last
        return found
