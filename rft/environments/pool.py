"""Keeps processes with environments ready, lends one to each rollout, and replaces those that failed.

A rollout has a process for itself until its episode ends. A process whose environment is reusable serves the next
rollout then; another one ends. A process that failed, or was left in the middle of a call, ends with all that it has
started. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from rft.config import RolloutConfig
from rft.environments.worker_process import WorkerProcess
from rft.errors import ConfigError, RolloutError
from rft.workers.guard import GroupGuard

START_S = 120.0
"""How long an environment may take to start: it may import a large library on a busy machine."""
CLOSE_S = 2.0
"""How long environments may take to close when the pool does."""
LEAKED = 0.75
"""A process that holds more than this share of its memory limit between two episodes is replaced: it may leak."""
MIB = 1024 * 1024

log = logging.getLogger("rft")


@dataclass(frozen=True, slots=True)
class StepReply:
    """What one action led to, as the environment's process said it."""

    messages: list[dict[str, Any]]
    reward: float | None
    done: bool
    success: float | None
    info: dict[str, Any]


class Episode:
    """One episode of an environment. An error in it is the environment's fault."""

    def __init__(self, worker: WorkerProcess, step_s: float, messages: list[dict[str, Any]]) -> None:
        self._worker = worker
        self._step_s = step_s
        self.messages = messages
        """The first observation."""

    async def step(self, action: str) -> StepReply:
        """Apply an action. Raises RolloutError if the environment fails or takes too long."""
        request = {"op": "step", "action": action}
        return StepReply(**await self._worker.ask(request, "step", self._step_s, "rollout.environment_step_s"))


class EnvironmentPool:
    """At most ``rollout.environment_workers`` processes. Use it on one event loop, and close it there."""

    def __init__(self, config: RolloutConfig) -> None:
        """``config.environment`` must be set. Nothing starts yet."""
        assert config.environment is not None
        self._config = config
        self._name = config.environment
        self._guard = GroupGuard()
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._waiting: deque[asyncio.Future[WorkerProcess]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._at_once = asyncio.Semaphore(os.cpu_count() or 1)
        self._start_failed = False
        self._closed = False
        self.replaced = 0
        """Processes that were ended because they failed, were left in the middle of a call, or hold too much memory."""

    @property
    def processes(self) -> int:
        """Processes that run or start now."""
        return len(self._idle) + len(self._busy) + self._starting

    @contextlib.asynccontextmanager
    async def episode(self, seed: int, task: Mapping[str, Any]) -> AsyncIterator[Episode]:
        """Lend an environment, reset, for the time of the ``async with`` block.

        Raises RolloutError if it cannot be started or reset. The caller may wait for a process that is free.
        """
        worker = await self._take()
        try:
            request = {"op": "reset", "seed": seed, "task": task}
            reply = await worker.ask(request, "reset", self._config.environment_reset_s, "rollout.environment_reset_s")
            yield Episode(worker, self._config.environment_step_s, reply["messages"])
        finally:
            self._give_back(worker)

    async def start(self) -> None:
        """Start one process. Raises ConfigError if the environment cannot be made."""
        try:
            worker = await self._take()
        except RolloutError as error:
            raise ConfigError(str(error)) from error
        self._give_back(worker)

    async def close(self) -> None:
        """End all processes. Environments that are idle may close first."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self._waiting:
            waiting.cancel()
        ending = [worker.end(CLOSE_S) for worker in self._idle] + [worker.end() for worker in self._busy]
        await asyncio.gather(*ending)
        self._idle.clear()
        self._busy.clear()
        self._guard.close()

    async def _take(self) -> WorkerProcess:
        if self._idle:
            worker = self._idle.pop()
            self._busy.add(worker)
            self._fill()
            return worker
        waiting: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._fill()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._give_back(waiting.result())
            raise

    def _give_back(self, worker: WorkerProcess) -> None:
        self._busy.discard(worker)
        if self._closed:
            worker.kill()
        elif not worker.failed and worker.reusable and not self._leaks(worker):
            self._lend(worker)
        else:
            if worker.failed or worker.reusable:
                self.replaced += 1
            if worker.failed:
                worker.kill()
            self._run(worker.end(0.0 if worker.failed else CLOSE_S))
            self._fill()

    def _lend(self, worker: WorkerProcess) -> None:
        """Give a worker that is ready to the rollout that has waited longest."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._busy.add(worker)
                waiting.set_result(worker)
                return
        self._idle.append(worker)

    def _leaks(self, worker: WorkerProcess) -> bool:
        limit = self._config.environment_memory_mb
        return limit is not None and worker.data_bytes > LEAKED * limit * MIB

    def _fill(self) -> None:
        """Start the processes that rollouts wait for, and those that stand ready for the next ones."""
        wanted = sum(not waiting.done() for waiting in self._waiting)
        # If an environment does not start, only a rollout that asks for it tries again.
        wanted += 0 if self._start_failed else max(self._config.environment_spare - len(self._idle), 0)
        room = self._config.environment_workers - self.processes
        for _ in range(min(wanted - self._starting, room)):
            self._starting += 1
            self._run(self._start())

    async def _start(self) -> None:
        worker = WorkerProcess(self._name, self._guard)
        memory = self._config.environment_memory_mb
        ready = False
        try:
            async with self._at_once:
                await worker.start(self._config.environment_options, None if memory is None else memory * MIB, START_S)
            ready = True
        except (RolloutError, OSError) as error:
            self._start_failed = True
            self._refuse(error)
        finally:
            self._starting -= 1
            if not ready:
                await worker.end()
        if ready:
            self._start_failed = False
            self._lend(worker)
        else:
            self._fill()  # there is room for another rollout's process

    def _refuse(self, error: Exception) -> None:
        """Fail the rollout that has waited longest."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(
                    error if isinstance(error, RolloutError) else RolloutError(f"environment {self._name!r}: {error}")
                )
                return
        log.warning("%s", error)

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
