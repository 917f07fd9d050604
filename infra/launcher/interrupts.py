"""Ctrl-C, SIGTERM and a closed terminal, noticed without losing control of what runs."""

from __future__ import annotations

import os
import signal
import stat
import sys
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts requests to stop.

    While ``patient`` they are only counted, for a loop that looks at ``take``; otherwise they raise
    KeyboardInterrupt, so that whatever blocks ends.
    """

    def __init__(self) -> None:
        self.patient = False
        self._pending = 0
        self._former: dict[signal.Signals, Any] = {}

    def take(self) -> bool:
        """Whether there is a request that has not been taken yet."""
        if self._pending == 0:
            return False
        self._pending -= 1
        return True

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # nohup ignores SIGHUP for us, and means it.
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
            _forget_terminal()
        if not self.patient:
            raise KeyboardInterrupt
        self._pending += 1


def _forget_terminal() -> None:
    """Once the terminal is gone, writing to it would be an error in the middle of stopping."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # isatty() says no once the terminal is gone; a file or pipe is to be written on.
        if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
