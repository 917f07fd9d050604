"""Names of archive files, and what a set of them covers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r"(?P<topic>.+)\.(?P<partition>\d+)\.(?P<first>\d{20})-(?P<end>\d{20})\.avro")
PART = ".part"
"""Suffix of a file that is not finished."""


@dataclass(frozen=True, slots=True, order=True)
class ArchiveFile:
    """One finished file: the offsets ``first`` to ``end`` (exclusive) of one partition."""

    topic: str
    partition: int
    first: int
    end: int

    @property
    def name(self) -> str:
        """Its file name."""
        return f"{self.topic}.{self.partition}.{self.first:020d}-{self.end:020d}.avro"

    @property
    def path(self) -> str:
        """Relative to the archive."""
        return f"{self.topic}/{self.name}"

    @classmethod
    def parse(cls, name: str) -> ArchiveFile | None:
        """From a file name; None if it is none of ours."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(found["topic"], int(found["partition"]), int(found["first"]), int(found["end"]))


def unfinished_path(topic: str, partition: int, first: int) -> str:
    """Where a file is written until it is whole, relative to the archive."""
    return f"{topic}/{topic}.{partition}.{first:020d}.avro{PART}"


def next_offset(files: Iterable[ArchiveFile]) -> int | None:
    """The offset after the last that files of one partition hold; None without files."""
    return max((file.end for file in files), default=None)


def plan(files: Iterable[ArchiveFile], start: int, end: int) -> tuple[list[ArchiveFile], list[tuple[int, int]]]:
    """Which files of one partition hold the offsets ``start`` to ``end`` (exclusive), and which offsets none holds.

    Where files overlap, the reader must skip what it has read already.
    """
    needed: list[ArchiveFile] = []
    missing: list[tuple[int, int]] = []
    at = start
    for file in sorted(files, key=lambda file: (file.first, file.end)):
        if file.end <= at or at >= end:
            continue
        if file.first > at:
            missing.append((at, min(file.first, end)))
        if file.first < end:
            needed.append(file)
        at = file.end
    if at < end:
        missing.append((at, end))
    return needed, missing
