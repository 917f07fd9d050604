"""Defines the names of archive files, and finds which files cover a range. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r"(?P<topic>.+)\.(?P<partition>\d+)\.(?P<first>\d{20})-(?P<end>\d{20})\.avro")
PART = ".part"
"""Suffix of a file that is not finished."""


@dataclass(frozen=True, slots=True, order=True)
class ArchiveFile:
    """One finished file. It holds the offsets ``first`` to ``end`` (exclusive) of one partition."""

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
        """Parse a file name; return None for any other file."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(found["topic"], int(found["partition"]), int(found["first"]), int(found["end"]))


def unfinished_path(topic: str, partition: int, first: int) -> str:
    """Return the path, relative to the archive, of a file until it is finished."""
    return f"{topic}/{topic}.{partition}.{first:020d}.avro{PART}"


def next_offset(files: Iterable[ArchiveFile]) -> int | None:
    """Return the offset after the last one that the files of one partition hold; None without files."""
    return max((file.end for file in files), default=None)


def plan(files: Iterable[ArchiveFile], start: int, end: int) -> tuple[list[ArchiveFile], list[tuple[int, int]]]:
    """Return the files of one partition that hold the offsets ``start`` to ``end`` (exclusive), and the missing ranges.

    Where files overlap, the reader must skip what it has already read.
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
