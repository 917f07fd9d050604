"""What a tracker is given, and what it must offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Point:
    """Numbers of one moment of a run."""

    step: int
    """Gradient steps taken."""
    values: Mapping[str, float]
    """Finite, by name: ``train/loss``, ``eval/held_out/accuracy``, …"""
    at_ms: int
    """Unix time in milliseconds of the event that they come from."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Which run the points are of."""

    name: str
    identity: str
    """The same for every attachment to this run, and another's never."""
    folder: Path
    """For what is kept on this machine; exists."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration with secrets masked."""


class Tracker(Protocol):
    """One connection. Whatever its methods raise, the caller opens another and says the point again."""

    def log(self, point: Point) -> None:
        """Take a point. Points come in the log's order; after a restart they come again from the first one."""
        ...

    def close(self) -> None:
        """Write what is buffered."""
        ...


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return found
