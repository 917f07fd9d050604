"""A pipe that a program writes its output to, and an event loop reads.

The pipe is ours and not the subprocess's. asyncio waits for the end of those, and closes none that a process which the
program has left behind still holds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

CHUNK = 65536


class OutputPipe:
    """One pipe. Give ``write_fd`` to the program, then close it with ``started``."""

    def __init__(self) -> None:
        read_fd, self.write_fd = os.pipe()
        self._file = os.fdopen(read_fd, "rb", buffering=0)
        self._transport: asyncio.ReadTransport | None = None

    def started(self) -> None:
        """Close the end that the program has, or could not be given."""
        os.close(self.write_fd)

    async def read(self) -> AsyncIterator[bytes]:
        """Yield what is written until all who hold the other end have closed it. Call it once."""
        stream = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._file
        )
        while part := await stream.read(CHUNK):
            yield part

    def close(self) -> None:
        """Close our end."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._file.close()
