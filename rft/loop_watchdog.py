"""Finds code that blocks an event loop, names it, and interrupts it if it is a user's.

All rollouts of an explorer share one event loop, and so do all events of a processor. A workflow that calls
``time.sleep`` or loops without ``await`` stops all of them, their deadlines included. A thread sees that the loop does
not answer. It names the place where the main thread stands, and then interrupts it: a signal's handler raises
LoopBlockedError there, which fails that rollout or that sample like any other error of its code.

C code that never gives Python's lock back stops this thread, too. ``launcher.stall_s`` covers that.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Collection
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

from rft.errors import LoopBlockedError
from rft.telemetry.activity import role_activity

LOOK_EVERY_S = 0.5
NAMED_AFTER_S = 3.0
"""A loop that has not answered for so long is named."""
INTERRUPT_EVERY_S = 5.0
MAX_INTERRUPTS = 3
"""Code that is still there after so many catches what interrupts it. The role ends then."""
_SIGNAL = signal.SIGRTMIN + 7
_OURS = ("schemas", "rft", "producers", "consumers", "infra")
_ROOT = Path(__file__).parents[1]
_LIBRARIES = tuple(
    {
        *(str(_ROOT / floor) + "/" for floor in _OURS),
        *(sysconfig.get_path(name) + "/" for name in ("stdlib", "purelib")),
    }
)

log = logging.getLogger("rft")


class LoopWatchdog:
    """Watches the event loop that runs on the main thread. Use it as a context, on that loop."""

    def __init__(self, limit_s: float, setting: str, may_interrupt: Collection[CodeType]) -> None:
        """Args:
        limit_s: How long code may block the loop.
        setting: The field with the limit, for the error.
        may_interrupt: Functions of ours that call a user's code and expect it to raise anything.
        """
        self._limit_s = limit_s
        self._setting = setting
        self._may_interrupt = frozenset(may_interrupt)
        self._closed = threading.Event()
        self._asked_at: float | None = None
        self._place = ""
        self.blocked = 0
        """How often the loop was blocked for longer than the limit."""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # a signal's handler runs there only
            self._loop = asyncio.get_running_loop()
            self._before: Any = signal.signal(_SIGNAL, self._interrupt)
            self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if hasattr(self, "_thread"):
            self._thread.join()
            signal.signal(_SIGNAL, self._before)

    def _watch(self) -> None:
        named, interrupts = False, 0
        while not self._closed.wait(LOOK_EVERY_S):
            asked_at = self._asked_at
            if asked_at is None:
                named, interrupts = False, 0
                self._asked_at = time.monotonic()
                self._loop.call_soon_threadsafe(self._answer)
                continue
            blocked_s = time.monotonic() - asked_at
            if blocked_s >= NAMED_AFTER_S and not named:
                named = True
                log.warning("the event loop does not answer since %.0f s: %s", blocked_s, self._where())
            if blocked_s >= self._limit_s + interrupts * INTERRUPT_EVERY_S and self._is_users(_main_frame()):
                if interrupts == MAX_INTERRUPTS:
                    role_activity().fatal = (
                        f"the event loop is blocked since {blocked_s:.0f} s and cannot be interrupted: "
                        f"{self._where()}. Await in it, run it in a thread, or let errors pass"
                    )
                elif interrupts < MAX_INTERRUPTS:
                    self._place = self._where()
                    signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
                interrupts += 1

    def _answer(self) -> None:
        self._asked_at = None

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        # The loop may have gone on since the signal was sent.
        if self._asked_at is not None and self._is_users(frame):
            self.blocked += 1
            raise LoopBlockedError(
                f"blocked the event loop for {time.monotonic() - self._asked_at:.0f} s ({self._setting}): "
                f"{self._place}. Await in it, or run it in a thread (asyncio.to_thread)"
            )

    def _is_users(self, frame: FrameType | None) -> bool:
        """Return whether an error at ``frame`` ends a user's code only."""
        return any(each.f_code in self._may_interrupt or _is_foreign(each) for each in _frames_in_loop(frame))

    def _where(self) -> str:
        """Return where the main thread stands: in a user's code if there is some, and in what that calls."""
        frames = _frames_in_loop(_main_frame())
        users = [frame for frame in frames if _is_foreign(frame)]
        return " in ".join(dict.fromkeys(_place(frame) for frame in [*frames[:1], *users[:1]])) or "nowhere"


def _main_frame() -> FrameType | None:
    frames = sys._current_frames()  # noqa: SLF001  # the only way to name what another thread does
    return frames.get(threading.main_thread().ident or 0)


def _frames_in_loop(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of what the event loop runs now, innermost first; none if it runs nothing."""
    frames: list[FrameType] = []
    while frame is not None:
        if frame.f_code is asyncio.Handle._run.__code__:  # noqa: SLF001  # an error above it ends a task, below it the loop
            return frames
        frames.append(frame)
        frame = frame.f_back
    return []


def _is_foreign(frame: FrameType) -> bool:
    """Return whether a frame is of neither our packages nor a library."""
    name = frame.f_code.co_filename
    return name[:1] != "<" and not name.startswith(_LIBRARIES)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
