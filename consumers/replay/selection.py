"""Defines which events of ``ready`` a replay selects. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from consumers.replay import SelectionError
from consumers.replay.filters import Filter, compile_filter
from consumers.replay.selected_event import newest_version
from rft.log.coordinates import LogPosition, Offsets
from schemas.events import Experience

_RANGE = re.compile(r"(?P<first>\d*):(?P<last>\d*)|(?P<only>\d+)")


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers ``first`` to ``last``, both included; without a ``last`` there is no end."""

    first: int = 0
    last: int | None = None

    def __contains__(self, number: int) -> bool:
        return number >= self.first and (self.last is None or number <= self.last)

    def __str__(self) -> str:
        return f"{self.first}:{'' if self.last is None else self.last}"

    @classmethod
    def parse(cls, text: str, option: str) -> Range:
        """Parse ``A:B``, ``A:``, ``:B`` or ``A``. Raises SelectionError, which names ``option``."""
        match = _RANGE.fullmatch(text.strip())
        if match is None:
            raise SelectionError(f"{option} {text}: write A:B (both included), A:, :B or A")
        if match["only"]:
            return cls(int(match["only"]), int(match["only"]))
        parsed = cls(int(match["first"] or 0), int(match["last"]) if match["last"] else None)
        if parsed.last is not None and parsed.last < parsed.first:
            raise SelectionError(f"{option} {text}: the last is before the first")
        return parsed


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions for an event to be selected. All of them must hold; a condition that is not set always holds."""

    offsets: Mapping[int, Range] = field(default_factory=dict)
    """Offsets of ``ready`` by partition. If any is given, no event of other partitions is selected."""
    since_ms: int | None = None
    """Unix time: the event in the log is not older."""
    until_ms: int | None = None
    """Unix time: the event in the log is older."""
    versions: Range | None = None
    """Weight versions: one of these generated each token that the policy wrote."""
    steps: Range | None = None
    """Steps of ``trainer.model_key``: one of these trained the event."""
    where: str | None = None
    """A filter expression, see :mod:`consumers.replay.filters`."""

    def compile_where(self) -> Filter | None:
        """Return the predicate of ``where``. Raises SelectionError."""
        return None if self.where is None else compile_filter(self.where)

    def bounds(self, begins: Offsets, ends: Offsets) -> tuple[dict[int, int], dict[int, int]]:
        """Return the first offset to read and the offset after the last, for every partition of ``begins``.

        A range beyond the log's ends stays as it is, so that reading it names what is missing. Raises SelectionError
        for an unknown partition.
        """
        unknown = sorted(set(self.offsets) - set(begins))
        if unknown:
            raise SelectionError(
                f"--offsets: there is no partition {unknown[0]} of ready; there are 0 to {max(begins)}"
            )
        if not self.offsets:
            return dict(begins), dict(ends)
        starts, stops = dict(begins), dict(begins)
        for partition, wanted in self.offsets.items():
            # Without a first offset, begin at the oldest event that still exists.
            starts[partition] = wanted.first or begins[partition]
            stops[partition] = ends[partition] if wanted.last is None else wanted.last + 1
        return starts, stops

    def matches_offsets(self, position: LogPosition) -> bool:
        """Return whether ``offsets`` contains this position."""
        partition, offset = position
        return not self.offsets or (partition in self.offsets and offset in self.offsets[partition])

    def matches_time(self, timestamp_ms: int) -> bool:
        """Return whether an event of that time is neither too old nor too young."""
        after = self.since_ms is None or timestamp_ms >= self.since_ms
        return after and (self.until_ms is None or timestamp_ms < self.until_ms)

    def matches_versions(self, experience: Experience) -> bool:
        """Return whether one of ``versions`` generated each token that the policy wrote."""
        if self.versions is None:
            return True
        oldest, newest = experience.oldest_version, newest_version(experience)
        return oldest in self.versions and newest in self.versions

    def to_json(self) -> dict[str, Any]:
        """Return the conditions that are set, as plain values."""
        values = {
            "offsets": {str(p): str(r) for p, r in sorted(self.offsets.items())} or None,
            "since_ms": self.since_ms,
            "until_ms": self.until_ms,
            "versions": None if self.versions is None else str(self.versions),
            "steps": None if self.steps is None else str(self.steps),
            "where": self.where,
        }
        return {name: value for name, value in values.items() if value is not None}


def parse_offsets(texts: Iterable[str]) -> dict[int, Range]:
    """Parse texts of the form ``PARTITION=A:B``, each partition once. Raises SelectionError."""
    ranges: dict[int, Range] = {}
    for text in texts:
        partition, sign, span = text.partition("=")
        if not sign or not partition.strip().isdigit():
            raise SelectionError(f"--offsets {text}: write PARTITION=A:B, e.g. 0=100:250")
        if int(partition) in ranges:
            raise SelectionError(f"--offsets {text}: partition {int(partition)} is named twice")
        ranges[int(partition)] = Range.parse(span, f"--offsets {partition}=")
    return ranges
