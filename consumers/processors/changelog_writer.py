"""Writes the changelog of waiting groups, in order."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple

from consumers.processors.output import Output


class ChangelogWriter:
    """Writes one state after the other: an older state of a group must not follow a newer one on the log."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._queue: asyncio.Queue[_Write] = asyncio.Queue()
        self._task = asyncio.create_task(self._write_queued())

    def write(self, partition: int, group_id: str, value: bytes | None) -> asyncio.Future[None]:
        """Queue the state of a group, or None to delete it. Return a future of its acknowledgement."""
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Write(partition, group_id, value, acknowledged))
        return acknowledged

    def close(self) -> None:
        """Write nothing more."""
        self._task.cancel()

    async def _write_queued(self) -> None:
        while True:
            write = await self._queue.get()
            try:
                sent = await self._output.save_waiting(write.partition, write.group_id, write.value)
            except Exception as error:  # raised where the acknowledgement is awaited, and ends the worker
                write.acknowledged.set_exception(error)
                continue
            sent.add_done_callback(partial(_pass_on, write.acknowledged))


class _Write(NamedTuple):
    partition: int
    group_id: str
    value: bytes | None
    acknowledged: asyncio.Future[None]


def _pass_on(acknowledged: asyncio.Future[None], sent: asyncio.Future[None]) -> None:
    if acknowledged.done():
        return
    error = asyncio.CancelledError() if sent.cancelled() else sent.exception()
    if error is None:
        acknowledged.set_result(None)
    else:
        acknowledged.set_exception(error)
