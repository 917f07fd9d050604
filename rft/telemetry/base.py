"""The contract of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Point:
    """Metrics of one moment of a run."""

    step: int
    """Gradient steps taken."""
    values: Mapping[str, float]
    """Finite values by name: ``train/loss``, ``eval/held_out/accuracy``, …"""
    at_ms: int
    """Unix time in milliseconds of the event that the values come from."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that points belong to."""

    name: str
    identity: str
    """Unique to the run, and the same each time that trackers are opened for it."""
    folder: Path
    """An existing folder for a tracker's files on this machine."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration with secrets masked."""


class Tracker(Protocol):
    """One connection. If a method raises, the caller opens another tracker and logs the same point again."""

    def log(self, point: Point) -> None:
        """Record a point. Points come in the log's order; after a restart they come again from the first one."""
        ...

    def close(self) -> None:
        """Write what is buffered, and close the connection."""
        ...


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested ``values`` as one mapping with dotted names."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and value
        result |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return result
