"""Puts the rows of a sample together. Pure.

A rollout gives several rows where its history was rewritten. They are one sample: they have one reward, and either all
of them are trained or none. A rollout that is done again may give other rows, because the weights changed meanwhile. So
a sample is made of the rows of one try (:attr:`schemas.events.Experience.attempt`). The first try of which all rows
have come counts. Until then, row 0 of a later try takes the place of an earlier one that broke off: producers publish
the rows of a try in order. In a group with spare samples, a later try also takes the place of one that failed: the
explorer that made it cancels the others when enough of its own are good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from rft.stream.pending_sample import PendingSample
from schemas.events import Experience

ROWS_MISSING = "rows_missing"
"""Cause of the rows of a sample whose other rows did not come in time."""


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Says which rows of one sample have come."""

    attempt: str
    rows: int
    """Rows that the sample is to have."""
    offsets: Mapping[int, int]
    """Offset by row."""
    replaceable: bool = False
    """True when its rollout failed and its group counts good samples only."""

    @property
    def complete(self) -> bool:
        return len(self.offsets) >= self.rows


def place(held: HeldRows | None, experience: Experience, offset: int) -> Literal["add", "replace", "duplicate"]:
    """Decide about one row: add it to those held, put it in the place of all of them, or leave it out."""
    if held is None:
        return "add"
    if held.replaceable and experience.finish_reason != "error":
        return "replace" if _is_later_try(held, experience, offset) else "duplicate"
    if held.complete:
        return "duplicate"
    if (held.attempt, held.rows) == (experience.attempt, experience.rows):
        return "duplicate" if experience.row in held.offsets else "add"
    return "replace" if _is_later_try(held, experience, offset) else "duplicate"


def _is_later_try(held: HeldRows, experience: Experience, offset: int) -> bool:
    """Return whether a row begins a later try. A row that is read again after a restart comes later, but is none."""
    return experience.row == 0 and offset > max(held.offsets.values())


@dataclass(slots=True)
class SampleRows:
    """Holds the pending rows of one sample, all of one try."""

    rows: dict[int, PendingSample] = field(default_factory=dict)
    """By row, in order of arrival; at least one."""

    @property
    def held(self) -> HeldRows:
        first = next(iter(self.rows.values())).experience
        offsets = {row: one.offset for row, one in self.rows.items()}
        return HeldRows(first.attempt, first.rows, offsets, replaceable=self.failed and first.spare > 0)

    @property
    def complete(self) -> bool:
        return len(self.rows) >= next(iter(self.rows.values())).experience.rows

    @property
    def failed(self) -> bool:
        """True when its rollout failed."""
        return any(one.experience.finish_reason == "error" for one in self.rows.values())

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.rows.values())

    def finished(self) -> list[PendingSample]:
        """Return the rows in order, each with the reward and the cause of the sample.

        The last row has the sample's reward. If one row is filtered or missing, all are filtered.
        """
        rows = [self.rows[row] for row in sorted(self.rows)]
        cause = next((one.cause for one in rows if one.cause is not None), None)
        if cause is None and not self.complete:
            cause = ROWS_MISSING
        last = rows[-1]
        reward = last.reward if self.complete and cause is None else 0.0
        if len(rows) == 1 and self.complete:
            return rows
        return [replace(one, cause=cause, reward=reward, rewards=last.rewards) for one in rows]


def by_sample(rows: Iterable[PendingSample]) -> dict[str, SampleRows]:
    """Return the samples of these rows by :attr:`~schemas.events.Experience.sample_id`, in order of arrival."""
    samples: dict[str, SampleRows] = {}
    for one in rows:
        samples.setdefault(one.experience.sample_id, SampleRows()).rows[one.experience.row] = one
    return samples


def last_rows(rows: Iterable[PendingSample]) -> Iterator[PendingSample]:
    """Yield the last row of each sample, of which there is one."""
    return (one for one in rows if one.experience.row == one.experience.rows - 1)


def known_ids(samples: Mapping[str, SampleRows]) -> Iterator[str]:
    """Yield what names the complete samples and every row of the others: all that may not be released again."""
    for name, sample in samples.items():
        yield from [name] if sample.complete else (one.experience.experience_id for one in sample.rows.values())
