"""The roles as processes: started, asked to stop, killed, and seen to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.processes import last_lines, spawn, terminate
from infra.roles import lasting_error


@dataclass(frozen=True, slots=True)
class Command:
    """How a role's process is started. ``env`` is its whole environment."""

    args: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exit:
    """``code`` is negative for a signal; ``error`` is a lasting fault that the role named."""

    name: str
    code: int
    error: str | None


class RoleProcesses:
    """All role processes of a run. Each has its own session and dies with us, however we die."""

    def __init__(self, commands: Mapping[str, Command], logs: Path) -> None:
        self._commands = commands
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def spawn(self, name: str) -> None:
        command = self._commands[name]
        self._processes[name] = spawn(command.args, self.log_path(name), command.env)

    def terminate(self, name: str) -> None:
        """Ask the role to stop. Does not wait."""
        process = self._processes.get(name)
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End the role and what it started, at once. Its exit is still reported by :meth:`exits`."""
        process = self._processes.get(name)
        if process is not None:
            terminate(process, timeout=0)

    def kill_all(self) -> None:
        for name in self._processes:
            self.kill(name)

    def exits(self) -> list[Exit]:
        """Roles that have ended since the last call; what they may have started is killed."""
        ended = [(name, process) for name, process in self._processes.items() if process.poll() is not None]
        found = []
        for name, process in ended:
            code = terminate(process, timeout=0)
            del self._processes[name]
            found.append(Exit(name, code, lasting_error(self.last_lines(name)) if code == 1 else None))
        return found

    def log_path(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def last_lines(self, name: str, count: int = 20) -> list[str]:
        return last_lines(self.log_path(name), count)

    def memory_bytes(self, name: str) -> int:
        """Resident memory of the role's process; 0 when it does not run."""
        process = self._processes.get(name)
        return resident_bytes(process.pid) if process is not None else 0


def resident_bytes(pid: int | None) -> int:
    """Resident memory of a process; 0 if it is gone."""
    if pid is None:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
