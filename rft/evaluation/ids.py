"""Builds and parses the group ids of evaluations.

The id is ``eval-<version>-<number>``, for a further evaluation set ``eval-<version>-<set>-<number>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rft.config import MAIN_SET

PREFIX = "eval-"
_ID = re.compile(r"eval-(\d+)-(?:(.+)-)?(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class EvalGroup:
    """One held-out task, put to one weight version."""

    version: int
    number: int
    """The task's number in its set."""
    set_name: str = MAIN_SET

    @property
    def group_id(self) -> str:
        """The group's id in the log."""
        name = "" if self.set_name == MAIN_SET else f"{self.set_name}-"
        return f"{PREFIX}{self.version:08d}-{name}{self.number:08d}"


def parse_group_id(group_id: str) -> EvalGroup | None:
    """Parse an evaluation's group id; None for any other id."""
    found = _ID.fullmatch(group_id)
    return EvalGroup(int(found[1]), int(found[3]), found[2] or MAIN_SET) if found else None


def parse_key(key: bytes | None) -> EvalGroup | None:
    """Parse an event's key as :func:`parse_group_id` does, so that events of training groups need not be decoded."""
    if key is None or not key.startswith(PREFIX.encode()):
        return None
    return parse_group_id(key.decode("utf-8", "replace"))
