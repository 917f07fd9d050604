"""Shows what a role does and waits for: in its log once a minute, in a file of the run's folder, and over HTTP.

It also writes the role's notes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rft.config import Config
from rft.telemetry.activity import Activity, ActivityState
from rft.telemetry.health import Health, health_file, health_pages, make_health, write_health
from rft.telemetry.notes_file import NotesFile
from rft.telemetry.status_server import StatusServer

WRITE_EVERY_S = 1.0
LOG_EVERY_S = 60.0

logger = logging.getLogger("rft")


class ActivityReport:
    """A thread that reports a role's activity. Use it as a context around the role's work."""

    def __init__(
        self,
        config: Config,
        role: str,
        activity: Activity,
        notes: NotesFile,
        *,
        stopping: Callable[[], bool],
        stalled: Callable[[], bool],
    ) -> None:
        """``role`` is the process's name, such as ``explorer-0``: the name of its file."""
        self._role = role
        self._activity = activity
        self._notes = notes
        self._stopping = stopping
        self._stalled = stalled
        self._run_path = config.run.path
        self._path = health_file(config.run.path, role)
        self._unwritable = False
        self._server: StatusServer | None = None
        self._server = self._serve(config)
        self._schedule = LogSchedule(time.monotonic())
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._report, name="activity-report", daemon=True)

    def health(self) -> Health:
        """Return how the role is now. Thread-safe."""
        return make_health(
            self._role,
            os.getpid(),
            self._activity.state(),
            time.time(),
            url=None if self._server is None else self._server.url,
            stalled=self._stalled(),
            stopping=self._stopping(),
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join(2 * WRITE_EVERY_S)
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _serve(self, config: Config) -> StatusServer | None:
        """Serve the health. A role works without it, as it does without a tracker."""
        address = config.telemetry.address
        if address is None:
            return None
        try:
            return StatusServer(address, health_pages(self.health))
        except OSError as error:
            logger.warning(
                "health is not served: telemetry.listen = '%s': %s. Choose another port; several roles on one machine "
                "need port 0, which takes a free one",
                config.telemetry.listen,
                error.strerror or error,
            )
            return None

    def _report(self) -> None:
        if self._server is not None:
            logger.debug("health: %s/healthz", self._server.url)
        while True:
            self._write()
            self._notes.write()
            if line := self._schedule.line(time.monotonic(), self._activity.state()):
                logger.info(line)
            if self._closed.wait(WRITE_EVERY_S):
                return

    def _write(self) -> None:
        """Write the file, if there is a folder of the run: a processor in a cluster needs none."""
        if not self._run_path.is_dir():
            return
        try:
            write_health(self._path, self.health())
            self._unwritable = False
        except OSError as error:
            if not self._unwritable:
                logger.warning("the role's state cannot be written to %s: %s", self._path, error.strerror or error)
            self._unwritable = True


class LogSchedule:
    """Chooses when a wait is worth a line: once a minute, while it lasts. Pure."""

    def __init__(self, now: float) -> None:
        self._logged_at = now

    def line(self, now: float, state: ActivityState) -> str | None:
        """Return the line to log now, if any. Waits for the broker are logged where they happen."""
        if state.outage or state.since_s < LOG_EVERY_S or now - self._logged_at < LOG_EVERY_S:
            return None
        self._logged_at = now
        return str(state)
