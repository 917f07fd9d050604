"""Speaks with the process of one environment: starts it, asks it with deadlines, and ends its whole process group."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft.environments.wire import MAX_REPLY_BYTES
from rft.errors import RolloutError
from rft.workers.guard import GroupGuard
from rft.workers.lines import WireError, decode, encode
from rft.workers.spawn import TAIL_BYTES, how_it_ended, quote_last_line, start_module

REAP_S = 5.0
"""How long a killed process may take to be gone. Longer, and the kernel holds it: it is left alone."""


class WorkerProcess:
    """One process. After a fault it is of no use: end it."""

    def __init__(self, name: str, guard: GroupGuard) -> None:
        """``name`` is ``rollout.environment``, for errors."""
        self._name = name
        self._guard = guard
        self.reusable = False
        """Whether it serves several episodes."""
        self.failed = False
        """Whether a call has failed or was canceled, so that nobody knows what the process does now."""

    async def start(self, options: Mapping[str, Any], memory_bytes: int | None, deadline_s: float) -> None:
        """Start the process and make the environment. Raises RolloutError; then, too, the process must be ended."""
        loop = asyncio.get_running_loop()
        # Its death signal comes when this thread ends: it is the one that runs the event loop.
        self._process = start_module("rft.environments.worker")
        self._guard.add(self._process.pid)
        self._replies = asyncio.StreamReader(limit=MAX_REPLY_BYTES + 1)
        self._output = _Tail()
        replies = asyncio.StreamReaderProtocol(self._replies)
        self._reading, _ = await loop.connect_read_pipe(lambda: replies, self._process.stdout)
        self._listening, _ = await loop.connect_read_pipe(lambda: self._output, self._process.stderr)
        self._writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, self._process.stdin)
        request = {"op": "open", "environment": [self._name, options], "memory_bytes": memory_bytes}
        reply = await self.ask(request, "its start", deadline_s, "")
        self.reusable = reply["reusable"] is True

    async def ask(self, request: Mapping[str, Any], what: str, deadline_s: float, setting: str) -> dict[str, Any]:
        """Return the reply to one request. Raises RolloutError if there is none in time, or if it is a fault.

        ``what`` names the request and ``setting`` the field with the deadline, for the error.
        """
        try:
            line = encode(request)
        except WireError as error:
            raise self._fault(f"{what}: the request {error}") from error
        self.failed = True  # until the reply is here: a canceled call leaves a process that is busy
        self._writing.write(line)
        try:
            async with asyncio.timeout(deadline_s):
                line = await self._replies.readline()
        except TimeoutError:
            where = f" ({setting})" if setting else ""
            raise self._fault(f"{what} did not end within {deadline_s:g} s{where}") from None
        except ValueError:
            raise self._fault(f"{what}: the reply is longer than {MAX_REPLY_BYTES:,} bytes") from None
        if not line.endswith(b"\n"):
            raise self._fault(f"{await self._how_it_ended()} in {what}{self._output.quote()}")
        try:
            reply = decode(line)
        except WireError as error:
            raise self._fault(f"{what}: the reply {error}") from error
        if "fault" in reply:
            raise self._fault(str(reply["fault"]))
        self.failed = False
        return reply

    @property
    def data_bytes(self) -> int:
        """Bytes of data that the process holds, as its memory limit counts them; 0 if the system does not say."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:")), 0)

    async def end(self, grace_s: float = 0.0) -> None:
        """End the process and all that it has started. In ``grace_s`` seconds it may close its environment."""
        if not hasattr(self, "_process"):
            return
        if hasattr(self, "_writing"):
            self._writing.close()
        if grace_s:
            await self._gone(grace_s)
        self.kill()
        await self._gone(REAP_S)
        for transport in (getattr(self, "_reading", None), getattr(self, "_listening", None)):
            if transport is not None:
                transport.close()

    def kill(self) -> None:
        """Kill the process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._guard.discard(self._process.pid)

    async def _gone(self, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while self._process.poll() is None:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.005)
        return True

    async def _how_it_ended(self) -> str:
        if not await self._gone(1.0):
            return "closed its output"
        return how_it_ended(self._process.returncode)

    def _fault(self, problem: str) -> RolloutError:
        return RolloutError(f"environment {self._name!r}: {problem}")


class _Tail(asyncio.Protocol):
    """Keeps the end of what an environment prints. Reading all of it keeps the environment from blocking."""

    def __init__(self) -> None:
        self._end = b""

    def data_received(self, data: bytes) -> None:
        self._end = (self._end + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def quote(self) -> str:
        """Return the last line for an error; empty if there is none."""
        return quote_last_line(self._end)
