"""Runs a schema registry as a process: Apicurio from REGISTRY_HOME, with Confluent's API."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.processes import free_port, spawn

START_S = 60.0


class RegistryProcess:
    """A registry that keeps its schemas in memory: each start is empty, and ids begin at 1 again."""

    def __init__(self, home: str, folder: Path) -> None:
        self._command = str(Path(home) / "bin" / "schema-registry")
        self._log = folder / "registry.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = spawn([self._command, str(self.port)], self._log)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, f"no answer within {START_S} s\n{self._log.read_text()}"
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Accept connections but answer nothing, as if the machine were lost; then continue."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # Until all of its threads have stopped it may answer once more.
        deadline = time.monotonic() + 5
        while psutil.Process(self._process.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
