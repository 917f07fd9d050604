"""Which events of ``ready`` a replay takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from consumers.replay.errors import SelectionError
from consumers.replay.fields import Picked, newest_version
from consumers.replay.filters import Filter, compile_filter
from schemas.events import Experience

_RANGE = re.compile(r"(?P<first>\d*):(?P<last>\d*)|(?P<only>\d+)")


@dataclass(frozen=True, slots=True)
class Range:
    """``first`` to ``last``, both included; ``last`` None: to the end."""

    first: int = 0
    last: int | None = None

    def __contains__(self, number: int) -> bool:
        return number >= self.first and (self.last is None or number <= self.last)

    def __str__(self) -> str:
        return f"{self.first}:{'' if self.last is None else self.last}"

    @classmethod
    def parse(cls, text: str, option: str) -> Range:
        """From ``A:B``, ``A:``, ``:B`` or ``A``. Raises SelectionError."""
        found = _RANGE.fullmatch(text.strip())
        if found is None:
            raise SelectionError(f"{option} {text}: write A:B (both included), A:, :B or A")
        if found["only"]:
            return cls(int(found["only"]), int(found["only"]))
        made = cls(int(found["first"] or 0), int(found["last"]) if found["last"] else None)
        if made.last is not None and made.last < made.first:
            raise SelectionError(f"{option} {text}: the last is before the first")
        return made


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that all hold for a selected event; those that are not set hold for every event."""

    offsets: Mapping[int, Range] = field(default_factory=dict)
    """Offsets of ``ready`` by partition; if any is given, partitions that are not named are left out."""
    since_ms: int | None = None
    """Unix time; the event in the log is not older."""
    until_ms: int | None = None
    """Unix time; the event in the log is older."""
    versions: Range | None = None
    """Weight versions: every token that the policy wrote is by one of these."""
    steps: Range | None = None
    """Steps of ``trainer.model_key``: the event was trained by one of these."""
    where: str | None = None
    """A filter expression, see :mod:`consumers.replay.filters`."""

    def compiled(self) -> Filter | None:
        """The predicate of ``where``. Raises SelectionError."""
        return None if self.where is None else compile_filter(self.where)

    def bounds(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> tuple[dict[int, int], dict[int, int]]:
        """First offset and offset after the last to read, for every partition of ``begins``.

        A range that goes beyond what is there stays as it is, for the log to say what is missing.
        Raises SelectionError for a partition that there is not.
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
            # Open at the left means from what is still there on.
            starts[partition] = wanted.first or begins[partition]
            stops[partition] = ends[partition] if wanted.last is None else wanted.last + 1
        return starts, stops

    def in_offsets(self, place: tuple[int, int]) -> bool:
        """Whether ``offsets`` has this (partition, offset)."""
        partition, offset = place
        return not self.offsets or (partition in self.offsets and offset in self.offsets[partition])

    def in_time(self, timestamp_ms: int) -> bool:
        """Whether an event of that time is not too old and not too young."""
        after = self.since_ms is None or timestamp_ms >= self.since_ms
        return after and (self.until_ms is None or timestamp_ms < self.until_ms)

    def by_versions(self, experience: Experience) -> bool:
        """Whether all that the policy wrote is by one of ``versions``."""
        if self.versions is None:
            return True
        oldest, newest = experience.oldest_version, newest_version(experience)
        return oldest in self.versions and newest in self.versions

    def to_json(self) -> dict[str, Any]:
        """Plain values, only of what is set."""
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
    """From ``PARTITION=A:B``, each partition once. Raises SelectionError."""
    found: dict[int, Range] = {}
    for text in texts:
        partition, sign, span = text.partition("=")
        if not sign or not partition.strip().isdigit():
            raise SelectionError(f"--offsets {text}: write PARTITION=A:B, e.g. 0=100:250")
        if int(partition) in found:
            raise SelectionError(f"--offsets {text}: partition {int(partition)} is named twice")
        found[int(partition)] = Range.parse(span, f"--offsets {partition}=")
    return found


class Once:
    """Tells which ids have come before: an experience that stands in the log twice is taken once, where it first is."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def is_first(self, picked: Picked) -> bool:
        """Whether its experience was not seen before."""
        name = picked.scored.experience.experience_id
        if name in self._seen:
            return False
        self._seen.add(name)
        return True
