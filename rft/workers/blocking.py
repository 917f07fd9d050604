"""Asks a process of its own, with a deadline for each answer. For callers that may block."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from rft.workers.guard import GroupGuard
from rft.workers.lines import WireError, decode, encode
from rft.workers.spawn import TAIL_BYTES, how_it_ended, quote_last_line, start_module

MAX_REPLY_BYTES = 1024 * 1024
CHUNK = 65536
REAP_S = 5.0
"""How long a killed process may take to be gone. Longer, and the kernel holds it: it is left alone."""
SHOWN_OUTPUT_BYTES = 64 * 1024
"""How much of a process's output is shown in our own log. A function that prints without end must not fill the disk."""


class WorkerError(Exception):
    """A process did not answer, and was ended. The text says why, as ``did not end within 5 s``."""


class BlockingWorker:
    """One process. It answers one request at a time; after a WorkerError it is of no use. Not thread-safe."""

    def __init__(self, module: str, guard: GroupGuard) -> None:
        """Start ``python -m module``, which need not be ready yet. ``guard`` ends it if this process is killed."""
        self._process = start_module(module)
        self._guard = guard
        guard.add(self._process.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._requests, self._replies = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)
        self._output = _Output(self._process.stderr)
        self._read = bytearray()

    def ask(
        self,
        request: Mapping[str, Any],
        deadline_s: float,
        *,
        slow_s: float | None = None,
        slow: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Return the reply to one request. If there is none after ``slow_s`` seconds, call ``slow`` once.

        Raises WorkerError if there is none in time, or if it is no message, and WireError if the request is none.
        """
        line = encode(request)
        until = time.monotonic() + deadline_s
        slow_at = None if slow_s is None or slow_s >= deadline_s else time.monotonic() + slow_s
        try:
            while line:
                line = line[self._write(line, until) :]
            while (end := self._read.find(b"\n")) < 0:
                if slow_at is not None and not self._wait_for(self._replies, min(slow_at, until)):
                    slow_at = None
                    slow()
                self._receive(until, deadline_s)
            reply, self._read = bytes(self._read[:end]), self._read[end + 1 :]
            return decode(reply)
        except WireError as error:
            self.end()
            raise WorkerError(f"gave a reply that {error}") from error
        except WorkerError:
            self.end()
            raise

    def end(self) -> None:
        """End the process and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._guard.discard(self._process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_S)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _write(self, line: bytes, until: float) -> int:
        try:
            return os.write(self._requests, line)
        except BlockingIOError:
            _, writable, _ = select.select([], [self._requests], [], max(until - time.monotonic(), 0.0))
            if not writable:
                raise WorkerError("did not take a request in time") from None
            return 0
        except BrokenPipeError:
            raise WorkerError(self._ended()) from None

    def _receive(self, until: float, deadline_s: float) -> None:
        if not self._wait_for(self._replies, until):
            raise WorkerError(f"did not end within {deadline_s:g} s")
        read = os.read(self._replies, CHUNK)
        if not read:
            raise WorkerError(self._ended())
        self._read += read
        if len(self._read) > MAX_REPLY_BYTES:
            raise WorkerError(f"gave a reply longer than {MAX_REPLY_BYTES:,} bytes")

    def _wait_for(self, file: int, until: float) -> bool:
        poll = select.poll()  # not select: a role may hold more than 1024 files
        poll.register(file, select.POLLIN)
        return bool(poll.poll(max(until - time.monotonic(), 0.0) * 1000))

    def _ended(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return how_it_ended(code) + self._output.quote()


class _Output:
    """Shows the beginning of what a process prints in our own log, and keeps the end for errors.

    Reading all of it keeps the process from blocking.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._end = b""
        self._thread = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._thread.start()

    def quote(self) -> str:
        """Return the last line for an error, once all is read; empty if there is none."""
        self._thread.join(1.0)
        return quote_last_line(self._end)

    def _read(self) -> None:
        shown = 0
        with self._stream, contextlib.suppress(OSError, ValueError):
            while read := os.read(self._stream.fileno(), CHUNK):
                self._end = (self._end + read)[-TAIL_BYTES:]
                if shown < SHOWN_OUTPUT_BYTES:
                    shown += len(read)
                    rest = "" if shown < SHOWN_OUTPUT_BYTES else "\n(it prints more, which is not shown)\n"
                    print(read.decode("utf-8", "replace"), end=rest, file=sys.stderr, flush=True)
