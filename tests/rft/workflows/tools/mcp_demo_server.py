"""Is a small MCP server for tests: over stdio, or over HTTP on the port that is its argument."""

from __future__ import annotations

import asyncio
import os
import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("demo")
os_exit = os._exit


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("inside")


@server.tool()
def pid() -> int:
    """Tell the process id."""
    return os.getpid()


@server.tool()
def variable(name: str) -> str:
    """Read an environment variable."""
    return os.environ.get(name, "not set")


@server.tool()
def die() -> str:
    """End the server."""
    os_exit(1)
    return ""


@server.tool()
def mislead() -> int:
    """Answer with a number, although the schema says that it is a text."""
    return 1


@server.tool()
async def wait(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "done"


server._tool_manager._tools["mislead"].fn_metadata.output_schema = {
    "type": "object",
    "properties": {"result": {"type": "string"}},
    "required": ["result"],
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
