"""A TCP proxy in front of a broker, which can cut, delay or drop what passes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from infra.processes import HOST

CHUNK = 64 * 1024


class _Link:
    """One client's connection and the one to the broker that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.ends = (client, broker)
        self.dropped = False

    def abort(self) -> None:
        """Reset both at once: nothing buffered is sent, and neither side gets a FIN."""
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


class Proxy:
    """Forwards connections to port ``target`` on loopback. Runs in its own thread; call its methods from another."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[_Link] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._closed = False
        self._longest_delay_s = 0.0
        self._drop_share = 0.0
        self._chance = random.Random(0)
        self._server: asyncio.Server | None = None
        self.port = 0

    def start(self, port: int = 0) -> int:
        """Listen, and return the port."""
        self._thread.start()

        async def listen() -> None:
            self._server = await asyncio.start_server(self._accept, HOST, port)
            self.port = self._server.sockets[0].getsockname()[1]

        self._do(listen())
        return self.port

    def stop(self) -> None:
        """End all connections and stop listening."""

        async def end() -> None:
            assert self._server is not None
            self._server.close()
            for link in self._links:
                link.abort()
            if self._pumps:
                await asyncio.wait(self._pumps, timeout=2)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._links)

    def cut(self) -> int:
        """End all connections and accept none until :meth:`restore`. Return how many were ended."""

        def act() -> int:
            self._closed = True
            return self._abort(lambda link: True)

        return self._call(act)

    def delay(self, longest_s: float, seed: int) -> None:
        """Delay every chunk of data by a random time, in order, until :meth:`restore`."""

        def act() -> None:
            self._chance, self._longest_delay_s = random.Random(seed), longest_s

        self._call(act)

    def drop(self, share: float, seed: int) -> int:
        """Drop all data on this share of the connections, new ones too, until :meth:`restore` ends them.

        Neither side gets an error: the other seems silent. Return how many connections were hit at once.
        """

        def act() -> int:
            self._chance, self._drop_share = random.Random(seed), share
            for link in self._links:
                link.dropped = self._chance.random() < share
            return sum(link.dropped for link in self._links)

        return self._call(act)

    def restore(self) -> None:
        """Forward everything again. Connections that have lost data are ended: their streams are incomplete."""

        def act() -> None:
            self._closed, self._longest_delay_s, self._drop_share = False, 0.0, 0.0
            self._abort(lambda link: link.dropped)

        self._call(act)

    def _abort(self, which: Callable[[_Link], bool]) -> int:
        hit = [link for link in self._links if which(link)]
        for link in hit:
            link.abort()
        return len(hit)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, up_writer)
        link.dropped = self._chance.random() < self._drop_share
        self._links.add(link)
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._pump(link, source, sink))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if self._longest_delay_s:
                    await asyncio.sleep(self._chance.uniform(0, self._longest_delay_s))
                if not link.dropped:
                    sink.write(data)
                    await sink.drain()
        if link in self._links and not link.dropped:
            # One side has ended, so the other's data is useless.
            self._links.discard(link)
            for end in link.ends:
                end.close()
        self._links.discard(link)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, act: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)
