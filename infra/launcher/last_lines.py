"""Prints the last lines of a run: what it reached, or why it failed, and what its roles warned of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from consumers.report.learning import change_text
from consumers.report.measures import NOT_SCORED
from infra.launcher.formats import clock
from infra.launcher.problems import Problem, beside
from infra.launcher.role_set import BROKER
from infra.launcher.supervisor import End
from rft.config import Config
from rft.weights.version_folders import versions_root

SHOWN_LINES = 15
"""Lines of a log that explain a failure without another explanation."""
SHOWN_PROBLEMS = 8
TRACEBACK = "Traceback (most recent call last)"


class Print(Protocol):
    """Prints one line."""

    def __call__(self, text: str, style: str | None = None, /) -> None: ...


class LastLines:
    """What a run says at its end."""

    def __init__(self, config: Config, print_line: Print, problems: Sequence[Problem]) -> None:
        """``problems`` are all warnings and errors of the roles, the worst first."""
        self._config = config
        self._path = config.run.path
        self._print = print_line
        self._problems = problems

    def print_done(self, report: Mapping[str, Any], elapsed_s: float) -> None:
        """Say what the run reached. ``report`` is the content of ``report.json``."""
        self._print(f"done in {clock(elapsed_s)}: {report['steps']} steps")
        for key, further in report["trainers"].items():
            self._print(f"{key}: {further['steps']} steps, its weights are in {versions_root(self._path, key)}")
        if change := change_text(report["held_out"]):
            self._print(change)
        elif not report["held_out"]["scored"]:
            self._print(f"held-out tasks: {NOT_SCORED}")
        for warning in report["learning"]:
            self._print(f"warning: {warning}", "yellow")
        self._print_problems("")
        self._print(f"report: {self._path / 'report.html'}")

    def print_interrupted(self, elapsed_s: float) -> None:
        """Say what becomes of a run that was stopped."""
        self._print(f"interrupted after {clock(elapsed_s)}")
        self._print_problems("")
        if self._config.broker.kind != "embedded":
            self._print("the same command resumes the run")
        elif self._config.archiving:
            self._print("the embedded broker keeps its log in memory, so the same command starts over; the events are")
            self._print(f"kept in {self._config.archive_url}. A run with broker.kind = 'kafka' can be resumed.")

    def print_failed(self, end: End, log: Path | None, lines: Sequence[str]) -> None:
        """Say why a run failed. ``lines`` are the last ones of ``log``, shown if the cause is not known better."""
        self._print(f"failed: {end.reason}", "red")
        self._print_problems(end.reason)
        if log is None:
            return
        if end.role == BROKER and self._config.broker.kind == "embedded":
            self._print("the embedded broker keeps its log in memory, so this run cannot go on. Start it again,")
            self._print("or use broker.kind = 'kafka', whose log survives.")
        if end.told and not any(TRACEBACK in line for line in lines):
            self._print(f"log: {log}")
            return
        self._print(f"last lines of {log}:")
        for line in lines[-SHOWN_LINES:]:
            self._print(f"  {line}")

    def _print_problems(self, reason: str) -> None:
        found = beside(reason, self._problems)
        for problem in found[:SHOWN_PROBLEMS]:
            self._print(str(problem), "red" if problem.level == "error" else "yellow")
        if len(found) > SHOWN_PROBLEMS:
            self._print(f"and {len(found) - SHOWN_PROBLEMS} more; all are in {self._path / 'report.html'}")
