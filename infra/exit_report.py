"""Reads and writes the small JSON file in which a role tells the launcher what ended it.

The environment variable ``RFT_EXIT_FILE`` names the file. The launcher removes it before each start and reads it after
the end. A role that is killed writes none.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from rft.errors import OutageError, RftError
from rft.telemetry.notes import one_line

EXIT_FILE_VARIABLE = "RFT_EXIT_FILE"
MAX_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class ExitReport:
    """The error that ended a role's process."""

    error: str
    """Name of the error's class."""
    message: str
    """On one line, at most ``MAX_MESSAGE`` characters."""
    exit_code: int
    transient: bool
    """Whether the error may pass by itself, so that a restart can help. True for a bug: nothing is known about it."""
    pid: int
    time: float
    """Unix time."""
    place: str = ""
    """Where the error was raised: ``module:function:line``."""
    outage: bool = False
    """Whether the role could not go on only because the broker is away."""
    idle_s: float = 0.0
    """How long the role had stood still before this error ended it."""

    @classmethod
    def from_error(cls, error: BaseException, *, exit_code: int, pid: int, now: float) -> Self:
        """Describe an :class:`RftError` or an exception that no one expected."""
        transient = error.transient if isinstance(error, RftError) else True
        text = one_line(str(error), MAX_MESSAGE)
        outage = isinstance(error, OutageError)
        return cls(type(error).__name__, text, exit_code, transient, pid, now, _place(error), outage)

    @property
    def fault(self) -> str:
        """The class and the place of the error: the same for one fault, whatever numbers its message holds."""
        return f"{self.error} at {self.place}" if self.place else self.error

    def __str__(self) -> str:
        """``PolicyError: no tokenizer in model/``."""
        return f"{self.error}: {self.message}" if self.message else self.error


def _place(error: BaseException) -> str:
    """Return where ``error`` was raised; an empty string if it never was."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return place_in(trace.tb_frame, trace.tb_lineno)


def place_in(frame: FrameType, line: int) -> str:
    """Return a line of a function as an exit report names it: ``module:function:line``."""
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_name}:{line}"


def write_exit_report(path: Path, report: ExitReport) -> None:
    """Write the report, whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}.{report.pid}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(report)) + "\n", "utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_exit_report(path: Path, *, pid: int) -> ExitReport | None:
    """Return the report of process ``pid``. None if there is none, it is malformed, or another process wrote it."""
    try:
        report = ExitReport(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    texts = all(isinstance(text, str) for text in (report.error, report.message, report.place))
    flags = all(isinstance(flag, bool) for flag in (report.transient, report.outage))
    numbers = isinstance(report.idle_s, int | float)
    return report if texts and flags and numbers and report.pid == pid else None
