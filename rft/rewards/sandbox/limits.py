"""Defines what code in the sandbox may use, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["time", "output", "memory"]
"""Why the sandbox ended code: it ran too long, wrote too much, or took too much memory. A process that exceeds its own
limits of memory, CPU time or files gets an error or a signal, as from any system."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use."""

    wall_s: float = 10.0
    cpu_s: int = 10
    """CPU time of each process, whole seconds."""
    memory_mb: int = 512
    """Address space of each process, and resident memory of all together."""
    processes: int = 16
    """Processes and threads at once."""
    files_mb: int = 32
    """All that it writes into its folder, in MiB."""
    output_kb: int = 256
    """What it writes to standard output and standard error, each, in KiB."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    exit_code: int | None
    """None if it was ended by a signal, or by the sandbox."""
    stdout: str
    stderr: str
    cause: Cause | None = None
    """What the sandbox ended it for."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the code ended by itself, without an error."""
        return self.exit_code == 0 and self.cause is None
