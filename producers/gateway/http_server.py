"""Serves an ASGI application on a thread of its own, which has its own event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

from rft.errors import ConfigError, PolicyError, RftError

T = TypeVar("T")
log = logging.getLogger("rft")
BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection: otherwise they may send a request on one that is just being closed."""
JOIN_S = 5.0
END_S = 2.0
LOOK_S = 1.0
"""How often a caller looks whether the server still runs."""
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class HttpServer:
    """Listens at once, and serves from ``start`` on."""

    def __init__(self, app: ASGIApp, listen: str, setting: str = "gateway.listen") -> None:
        """Listen on ``listen`` (host:port; port 0 takes a free one).

        Raises ConfigError, which names the ``setting``, if the address cannot be used.
        """
        self._socket = _listen(listen, setting)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
            )
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=setting.partition(".")[0], daemon=True)
        self.error: Exception | None = None
        """What ended the server, if it was not ``close``."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def url(self, host: str | None = None) -> str:
        """Return its address, as seen from this machine, or under another name of this machine."""
        bound = str(self._socket.getsockname()[0])
        name = host or ANY_ADDRESS.get(bound, bound)
        return f"http://[{name}]:{self.port}" if ":" in name else f"http://{name}:{self.port}"

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def close(self) -> None:
        """End the server. Requests that are being answered are dropped."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._socket.close()

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the server, from another one. Raises PolicyError if the server has ended."""
        answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))
        while not answer.done():
            if not self._thread.is_alive():
                answer.cancel()
                coroutine.close()
                raise PolicyError(f"the gateway has ended: {self.error or 'it was closed'}")
            await asyncio.wait([answer], timeout=LOOK_S)
        return answer.result()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine on the server's loop, and do not wait for it. Its error is logged."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).add_done_callback(_log_error)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function on the server's loop. Thread-safe."""
        # The loop is closed if the process ends meanwhile.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        # The role must end with this thread: the owner raises the error.
        except Exception as error:
            self.error = error

    async def _serve(self) -> None:
        await self._server.serve(sockets=[self._socket])
        # uvicorn has canceled what was being answered. Only its end closes the connection, for which a client waits.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=END_S)


def _log_error(done: Future[Any]) -> None:
    if not done.cancelled() and (error := done.exception()):
        log.error("%s: %s", type(error).__name__, error, exc_info=None if isinstance(error, RftError) else error)


def _listen(address: str, setting: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{setting} = {address!r}: cannot listen there: {error}") from error
