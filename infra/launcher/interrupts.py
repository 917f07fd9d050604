"""Counts Ctrl-C, SIGTERM and a closed terminal, without losing control of the running roles."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Handles requests to stop.

    A request raises KeyboardInterrupt, so that any blocking call ends. Within :meth:`deferred` requests are only
    counted, for a loop that calls :meth:`take`.
    """

    def __init__(self) -> None:
        self._deferred = False
        self._pending = 0
        self._former: dict[signal.Signals, Any] = {}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Count requests and raise no KeyboardInterrupt in this context."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def take(self) -> bool:
        """Take one counted request. Return whether there was one."""
        if self._pending == 0:
            return False
        self._pending -= 1
        return True

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # A signal that is ignored, as SIGHUP is under nohup, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _detach_from_terminal()
        if not self._deferred:
            raise KeyboardInterrupt
        self._pending += 1


def _detach_from_terminal() -> None:
    """Redirect output to nowhere: writing to a closed terminal would raise in the middle of a stop."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # isatty() is False once the terminal is closed. A file or a pipe stays as it is.
        if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
