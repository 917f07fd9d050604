"""Gives the tools of MCP servers (Model Context Protocol), by the SDK ``mcp``: over stdio, or streamable HTTP.

A server has one session, which all rollouts share. When the session breaks (the server died, or was restarted), the
next call begins a new one; a program is started again for it. The call that it broke in is answered with an error, and
is not repeated, because the server may have carried it out.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from rft.config.mcp import McpConfig
from rft.errors import ConfigError, first_line
from rft.workflows.tools.arguments import fit_arguments
from rft.workflows.tools.base import Tool, ToolError

if TYPE_CHECKING:
    from mcp import Client

START_S = 60.0
"""How long a server may take to begin a session; a call waits for its own deadline at most."""
CONNECT_S = 10.0
CLOSE_S = 5.0
"""How long it may take to end; the SDK sends SIGTERM after 2 s and SIGKILL after 4."""
MAX_TOOLS = 512
_ENDED = (-32000, -32600)
"""Codes of errors with which the SDK says that the connection is closed, or that the server ended the session."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")

log = logging.getLogger("rft")


class _Session:
    """Is one session with a server. The SDK wants one task to open and to close it, so it has a task of its own."""

    def __init__(self, config: McpConfig, field: str) -> None:
        self._config = config
        self._ending = asyncio.Event()
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.broken = asyncio.Event()
        self._task = asyncio.create_task(self._live(), name=f"mcp-{field}")

    async def client(self) -> Client:
        """Wait until it is open. Raises what prevents that."""
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """End it. Returns after ``CLOSE_S`` at the latest."""
        self.broken.set()
        self._ending.set()
        if not self._opened.done():
            self._task.cancel()
        _, running = await asyncio.wait({self._task}, timeout=CLOSE_S)
        if running:
            self._task.cancel()

    async def _live(self) -> None:
        from mcp import Client

        try:
            async with asyncio.timeout(START_S) as starting, Client(self._transport(), cache=None) as client:
                starting.reschedule(None)
                self._opened.set_result(client)
                await self._ending.wait()
        # The SDK, the transport and the server may raise anything.
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(cause(error))
                self._opened.exception()  # it is not lost if nobody waits any more
            elif not self._ending.is_set():
                log.warning("the session with MCP server %s ended: %s", self._config.shown, first_line(cause(error)))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self.broken.set()

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        return _watched(stdio(self._config) if self._config.command else http(self._config), self.broken)


class McpServer:
    """Is an MCP server as a source of tools."""

    def __init__(self, config: McpConfig, field: str) -> None:
        """Take a server, which ``field`` of the configuration describes.

        Raises ConfigError if the SDK is not installed, or a variable that holds a header is not set.
        """
        if importlib.util.find_spec("mcp") is None:
            raise ConfigError(f"{field}: MCP servers need the SDK: pip install 'stream-rft[mcp]'")
        for variable in [*config.headers_env.values(), *config.pass_env]:
            if variable not in os.environ:
                raise ConfigError(f"{field}: the environment variable {variable} is not set")
        self.field = field
        self.config = config
        self._session: _Session | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.sessions = 0
        """Sessions begun so far."""

    async def open(self) -> Sequence[Tool]:
        """Begin a session and return the server's tools. Raises ConfigError if that fails or it has none."""
        try:
            async with asyncio.timeout(START_S):
                client = await self.session().client()
                listed = await _list_tools(client)
        except TimeoutError:
            await self.close()
            raise ConfigError(f"{self._shown}: it did not list its tools within {START_S:g} s") from None
        # The SDK, the transport and the server may raise anything.
        except Exception as error:
            await self.close()
            raise ConfigError(f"{self._shown}: {first_line(cause(error))}") from error
        if not listed:
            raise ConfigError(f"{self._shown}: it has no tools")
        return [McpTool(self, tool.name, tool.description or "", tool.input_schema) for tool in listed]

    def session(self) -> _Session:
        """Return the present session; begin a new one if there is none or it is broken."""
        if self._session is not None and self._session.broken.is_set():
            log.warning("the session with MCP server %s is broken; a new one begins", self.config.shown)
            self._end()
        if self._session is None:
            self._session = _Session(self.config, self.field)
            self.sessions += 1
        return self._session

    async def close(self) -> None:
        """End the session, and the program that was started for it."""
        self._end()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _end(self) -> None:
        if self._session is not None:
            closing = asyncio.create_task(self._session.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._session = None

    @property
    def _shown(self) -> str:
        return f"{self.field}: the MCP server {self.config.shown}"


class McpTool:
    """Is a tool of an MCP server."""

    def __init__(self, server: McpServer, name: str, description: str, parameters: Mapping[str, Any]) -> None:
        if not NAME.fullmatch(name):
            raise ConfigError(f"{server.field}: the server's tool {name!r:.200} has a name that models cannot write")
        self._server = server
        self.name = name
        self.description = description
        self.parameters = parameters

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Return the text of the server's answer. Raises ToolError with its error, or with why it cannot be reached."""
        session = self._server.session()
        try:
            client = await session.client()
            result = await client.call_tool(self.name, fit_arguments(arguments, self.parameters))
        # The SDK, the transport and the server may raise anything.
        except Exception as error:
            if _breaks(error):
                session.broken.set()
            raise ToolError(f"the server of {self.name} failed: {first_line(cause(error))}") from error
        text = _text(result)
        if result.is_error:
            raise ToolError(text or f"{self.name} failed without a message")
        return text


async def _list_tools(client: Client) -> list[Any]:
    listed: list[Any] = []
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        listed += page.tools
        cursor = page.next_cursor
        if len(listed) > MAX_TOOLS:
            raise ToolError(f"it has more than {MAX_TOOLS} tools")
        if not cursor:
            return listed


def _text(result: Any) -> str:
    """Return the texts of an answer; of other content, its kind."""
    parts = [part.text if part.type == "text" else f"[{part.type}]" for part in result.content]
    return "\n".join(parts)


@asynccontextmanager
async def stdio(config: McpConfig) -> AsyncIterator[Any]:
    """Start the server's program, with the SDK's few variables of our environment and those of the configuration."""
    from mcp import StdioServerParameters, stdio_client

    passed = {name: os.environ[name] for name in config.pass_env}
    parameters = StdioServerParameters(
        command=config.command[0],
        args=config.command[1:],
        env={**passed, **config.env},
        encoding_error_handler="replace",
    )
    async with stdio_client(parameters) as streams:
        yield streams


@asynccontextmanager
async def http(config: McpConfig) -> AsyncIterator[Any]:
    """Connect to a server's address. A request may take as long as its call."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    headers = {name: os.environ[variable] for name, variable in config.headers_env.items()}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(None, connect=CONNECT_S)) as client,
        streamable_http_client(config.url or "", http_client=client) as streams,
    ):
        yield streams


class _WatchedStream:
    """Tells when a server's messages end: the SDK tells it only to the next call."""

    def __init__(self, stream: Any, ended: asyncio.Event) -> None:
        self._stream = stream
        self._ended = ended

    async def receive(self) -> Any:
        try:
            return await self._stream.receive()
        except BaseException:
            self._ended.set()
            raise

    def __aiter__(self) -> _WatchedStream:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except BaseException:
            self._ended.set()
            raise

    async def __aenter__(self) -> _WatchedStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> Any:
        return await self._stream.__aexit__(*details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@asynccontextmanager
async def _watched(transport: AbstractAsyncContextManager[Any], ended: asyncio.Event) -> AsyncIterator[Any]:
    async with transport as (read, write):
        yield _WatchedStream(read, ended), write


def cause(error: BaseException) -> Exception:
    """Return the error that a group of errors holds."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return ToolError(f"it did not begin a session within {START_S:g} s")
    return error if isinstance(error, Exception) else ToolError(f"{type(error).__name__}: {error}")


def _breaks(error: BaseException) -> bool:
    """Return whether the session may not be used any more after this error of a call.

    Refusals of the server (a wrong name, wrong arguments) leave it as it is. So does an answer that the SDK refuses
    because it violates the tool's own schema.
    """
    from mcp import MCPError

    if isinstance(error, MCPError):
        return error.code in _ENDED
    return not isinstance(error, RuntimeError | ValueError)
