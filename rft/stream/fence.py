"""Which entries of ``steps`` count when two trainers with one identity have written there. Pure.

A trainer claims its model's redo log with an entry of kind ``claim`` before it reads what to resume from. What another
incarnation writes after that claim does not count: the new trainer has not read it, so it will train those events
itself. Every reader of ``steps`` folds the topic through :class:`Fence`, in order of offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas.events import TrainingStep

CLAIM = "claim"


class Fence:
    """Knows of each model the incarnation that may write."""

    def __init__(self) -> None:
        self._newest: dict[str, str] = {}

    def counts(self, entry: TrainingStep) -> bool:
        """Take in the next entry; whether it is part of the model's history. A claim itself is not.

        Where the reading begins behind the claim, the first entry's writer is taken to hold it.
        """
        if entry.kind == CLAIM:
            self._newest[entry.model] = entry.incarnation
            return False
        return self._newest.setdefault(entry.model, entry.incarnation) == entry.incarnation


def that_count(entries: Iterable[TrainingStep]) -> Iterator[TrainingStep]:
    """Those of ``entries``, in order of offsets, that are part of their models' histories."""
    fence = Fence()
    return (entry for entry in entries if fence.counts(entry))
