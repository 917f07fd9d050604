"""Decides which entries of ``steps`` count when two trainers with one identity have written there. Pure.

A trainer claims its model's redo log with an entry of kind ``claim`` before it reads what to resume from. Entries that
another incarnation writes after that claim do not count: the new trainer has not read them, so it will train those
events itself. Every reader of ``steps`` passes the topic through :class:`Fence`, in order of offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas.events import TrainingStep

CLAIM = "claim"


class Fence:
    """Knows for each model the incarnation that may write."""

    def __init__(self) -> None:
        self._newest: dict[str, str] = {}

    def counts(self, entry: TrainingStep) -> bool:
        """Take the next entry and return whether it is part of the model's history. A claim itself is not.

        If reading begins after the claim, the writer of the first entry counts as the claimant.
        """
        if entry.kind == CLAIM:
            self._newest[entry.model] = entry.incarnation
            return False
        return self._newest.setdefault(entry.model, entry.incarnation) == entry.incarnation


def unfenced_entries(entries: Iterable[TrainingStep]) -> Iterator[TrainingStep]:
    """Yield those of ``entries``, given in order of offsets, that are part of their models' histories."""
    fence = Fence()
    return (entry for entry in entries if fence.counts(entry))
