"""Starts the roles as processes, asks them to stop, kills them, and notices when they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.exit_report import EXIT_FILE_VARIABLE, read_exit_report
from infra.launcher.role_notes import SILENT_S
from infra.processes import last_lines, spawn, terminate
from rft.telemetry.health import Health, health_file, read_health
from rft.telemetry.notes_file import read_notes


@dataclass(frozen=True, slots=True)
class Command:
    """How a role's process is started. ``env`` is its whole environment."""

    args: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a role's process."""

    name: str
    code: int
    """Negative for a signal."""
    fault: str | None
    """Class and place of the error that the role reported, unless it is transient; None if it reported none, as after
    a kill."""
    outage: bool = False
    """Whether the role ended only because the broker is away."""
    idle_s: float = 0.0
    """How long the role had stood still before."""
    error: str = ""
    """The error that the role reported, with its message; empty if it reported none."""


class RoleProcesses:
    """All role processes of a run. Each has its own session and dies with us, however we die."""

    def __init__(self, commands: Mapping[str, Command], run_path: Path) -> None:
        """The roles log to ``<run_path>/logs`` and report their errors in ``<run_path>/exits``."""
        self._commands = commands
        self._run_path = run_path
        self._logs = run_path / "logs"
        self._exits = (run_path / "exits").absolute()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._spawned_at: dict[str, float] = {}
        """Unix time of each role's newest start."""

    def spawn(self, name: str) -> None:
        """Start the role."""
        command, exit_file = self._commands[name], self._exit_file(name)
        # A file that cannot be removed does no harm: it holds the id of another process.
        with contextlib.suppress(OSError):
            exit_file.unlink()
        self._spawned_at[name] = time.time()
        environment = {**command.env, EXIT_FILE_VARIABLE: str(exit_file)}
        self._processes[name] = spawn(command.args, self.log_path(name), environment)

    def terminate(self, name: str) -> None:
        """Ask the role to stop. Does not wait."""
        process = self._processes.get(name)
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End the role and what it started at once. :meth:`exits` still reports its end."""
        process = self._processes.get(name)
        if process is not None:
            terminate(process, timeout=0)

    def kill_all(self) -> None:
        """End all roles at once."""
        for name in self._processes:
            self.kill(name)

    def exits(self) -> list[Exit]:
        """Return the roles that have ended since the last call. What they started and left behind is killed."""
        ended = [(name, process) for name, process in self._processes.items() if process.poll() is not None]
        found = []
        for name, process in ended:
            code = terminate(process, timeout=0)
            del self._processes[name]
            found.append(self._read_exit(name, process.pid, code))
        return found

    def _read_exit(self, name: str, pid: int, code: int) -> Exit:
        report = read_exit_report(self._exit_file(name), pid=pid)
        if report is None or report.exit_code != code:
            silent_s = self._silent_s(name, pid) if code == 1 else 0.0
            fault = "StallError" if silent_s else None
            return Exit(name, code, fault, idle_s=silent_s, error="" if code == 0 else self._last_error(name))
        fault = None if report.transient else report.fault
        return Exit(name, code, fault, report.outage, report.idle_s, str(report))

    def _last_error(self, name: str) -> str:
        """Return the newest error of the role's notes, for a role that could not report what ended it."""
        notes = read_notes(self._run_path).get(name, [])
        own = [note for note in notes if note.level == "error" and note.last >= self._spawned_at[name]]
        return max(own, key=lambda note: note.last).text if own else ""

    def _silent_s(self, name: str, pid: int) -> float:
        """Return how long the role could not report: within C code, it stands still without a report of its own.

        0 if it could. A role that ends by itself removes the file.
        """
        health = read_health(health_file(self._run_path, name), pid=pid)
        silent_s = 0.0 if health is None else time.time() - health.time
        return silent_s if silent_s >= SILENT_S else 0.0

    def _exit_file(self, name: str) -> Path:
        return self._exits / f"{name}.json"

    def log_path(self, name: str) -> Path:
        """Return the role's log file."""
        return self._logs / f"{name}.log"

    def last_lines(self, name: str, count: int = 20) -> list[str]:
        """Return the last lines of the role's log."""
        return last_lines(self.log_path(name), count)

    def health(self, name: str) -> Health | None:
        """Return what the role has last written about itself; None if it does not run or has written nothing yet."""
        process = self._processes.get(name)
        return None if process is None else read_health(health_file(self._run_path, name), pid=process.pid)

    def memory_bytes(self, name: str) -> int:
        """Return the resident memory of the role's process; 0 when it does not run."""
        process = self._processes.get(name)
        return resident_bytes(process.pid) if process is not None else 0


def resident_bytes(pid: int | None) -> int:
    """Return the resident memory of a process; 0 if it is gone."""
    if pid is None:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
