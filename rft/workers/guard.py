"""Keeps the process that ends worker processes with their role: see :mod:`rft.workers.group_guard`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path


class GroupGuard:
    """Tells the guard process which process groups there are. It starts with the first group. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()

    def add(self, group: int) -> None:
        """Note a process group that must end with this process."""
        with self._lock:
            self._groups.add(group)
            self._write(f"+{group}\n")

    def discard(self, group: int) -> None:
        """Note that a process group has ended, or is ended by us."""
        with self._lock:
            self._groups.discard(group)
            self._write(f"-{group}\n")

    def close(self) -> None:
        """End the guard, which ends all groups that were added and not discarded."""
        with self._lock:
            if self._process is not None:
                assert self._process.stdin is not None
                self._process.stdin.close()
                self._process.wait()
                self._process = None

    def _write(self, line: str) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = _start()
            line = "".join(f"+{group}\n" for group in self._groups)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError:
            # It was killed between the look and the write. The next line starts another, which gets all groups.
            self._process.kill()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -I and -S: it needs nothing but the standard library, and starts in 10 ms.
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("group_guard.py")), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        bufsize=0,
    )
