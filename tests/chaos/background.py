"""A thread that watches a run until it is asked to stop."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class BackgroundThread(ABC):
    """Runs ``_run`` in a thread of its own. ``_run`` returns soon after ``_stop`` is set."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait for that for a while."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(20)

    @abstractmethod
    def _run(self) -> None: ...
