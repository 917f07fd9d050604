"""Tools of real MCP servers, over both transports: schemas, answers, errors, and servers that die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rft.config.mcp import McpConfig
from rft.config.rollout import RolloutConfig
from rft.errors import ConfigError
from rft.workflows.messages import ToolCall
from rft.workflows.tools.base import Limits, ToolSet
from rft.workflows.tools.execution import Answer, run_calls
from rft.workflows.tools.mcp_servers import McpServer
from rft.workflows.tools.opening import configured_tools

SERVER = str(Path(__file__).with_name("mcp_demo_server.py"))
STDIO = McpConfig(command=[sys.executable, SERVER])


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 120))


async def ask(tools: ToolSet, name: str, /, **arguments: Any) -> Answer:
    return (await run_calls(tools, [ToolCall("", name, arguments)]))[0]


@contextmanager
def http_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < until
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def check_answers(config: McpConfig) -> None:
    server = McpServer(config, "rollout.mcp[0]")
    async with ToolSet(sources=[server], limits=Limits(timeout_s=20)) as tools:
        assert set(tools.tools) == {"add", "fail", "pid", "variable", "die", "mislead", "wait"}
        add = tools.tools["add"]
        assert add.description == "Add two numbers."
        assert add.parameters["properties"]["a"]["type"] == "integer"
        assert add.parameters["required"] == ["a", "b"]
        assert await ask(tools, "add", a=2, b="3") == Answer(ToolCall("", "add", {"a": 2, "b": "3"}), "5", False)
        failed = await ask(tools, "fail")
        assert (failed.failed, failed.text.startswith("Error: ")) == (True, True)
        wrong = await ask(tools, "add", a="three")
        assert wrong.failed
        assert "b" in wrong.text
        # The SDK refuses an answer that violates the tool's schema. Calls that are under way are not disturbed.
        waiting = asyncio.create_task(ask(tools, "wait", seconds=1))
        misled = await ask(tools, "mislead")
        assert misled.failed
        assert "Invalid structured content" in misled.text
        assert (await waiting).text == "done"
        began = time.monotonic()
        answers = await run_calls(tools, [ToolCall("", "wait", {"seconds": 1})] * 8)
        assert [answer.text for answer in answers] == ["done"] * 8
        assert time.monotonic() - began < 7
        assert (await ask(tools, "pid")).text.isdigit()
        assert server.sessions == 1


def test_a_program_answers_over_stdio() -> None:
    run(check_answers(STDIO))


def test_a_server_answers_over_http() -> None:
    port = free_port()
    with http_server(port):
        run(check_answers(McpConfig(url=f"http://127.0.0.1:{port}/mcp")))


def test_a_program_that_died_is_started_again_for_the_next_call() -> None:
    async def main() -> None:
        server = McpServer(STDIO, "rollout.mcp[0]")
        async with ToolSet(sources=[server], limits=Limits(timeout_s=30)) as tools:
            first = int((await ask(tools, "pid")).text)
            # While a call is under way: that call is answered with the error.
            call = asyncio.create_task(ask(tools, "wait", seconds=20))
            await asyncio.sleep(0.3)
            os.kill(first, signal.SIGKILL)
            broken = await call
            assert broken.failed
            assert broken.text.startswith("Error: the server of wait failed: ")
            second = int((await ask(tools, "pid")).text)
            assert second != first
            # Between two calls: nothing is lost.
            os.kill(second, signal.SIGKILL)
            await asyncio.sleep(0.5)
            answers = await run_calls(tools, [ToolCall("", "pid", {})] * 5)
            pids = {answer.text for answer in answers}
            assert not any(answer.failed for answer in answers)
            assert len(pids) == 1
            # A server that ends itself, again and again.
            for _ in range(2):
                assert (await ask(tools, "die")).failed
            assert (await ask(tools, "add", a=1, b=1)).text == "2"
            assert server.sessions == 5
            last = int((await ask(tools, "pid")).text)
        for process in (first, second, last):
            with pytest.raises(ProcessLookupError):
                os.kill(process, 0)

    run(main())


def test_a_server_that_is_away_is_used_again_when_it_is_back() -> None:
    port = free_port()

    async def main() -> None:
        source = McpServer(McpConfig(url=f"http://127.0.0.1:{port}/mcp"), "rollout.mcp[0]")
        with http_server(port) as process:
            tools = ToolSet(sources=[source], limits=Limits(timeout_s=20))
            await tools.__aenter__()
            call = asyncio.create_task(ask(tools, "wait", seconds=20))
            await asyncio.sleep(0.5)
            process.kill()
            assert (await call).failed
        for _ in range(2):
            away = await ask(tools, "add", a=1, b=1)
            assert away.failed
        with http_server(port):
            assert (await ask(tools, "add", a=1, b=1)).text == "2"
        # Restarted between two calls, which it does not notice.
        with http_server(port):
            assert (await ask(tools, "add", a=1, b=2)).text == "3"
            await tools.close()

    run(main())


def test_a_call_past_its_deadline_leaves_the_session_as_it_is() -> None:
    async def main() -> None:
        server = McpServer(STDIO, "rollout.mcp[0]")
        async with ToolSet(sources=[server], limits=Limits(timeout_s=1.0)) as tools:
            pid = (await ask(tools, "pid")).text
            assert (await ask(tools, "wait", seconds=30)).text == "Error: wait did not answer within 1 s."
            assert (await ask(tools, "pid")).text == pid
            assert server.sessions == 1

    run(main())


def test_a_program_gets_only_the_variables_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "s1")
    monkeypatch.setenv("OTHER_SECRET", "s2")
    config = McpConfig(command=STDIO.command, env={"PLAIN": "p"}, pass_env=["MY_SECRET"])

    async def main() -> list[str]:
        async with ToolSet(sources=[McpServer(config, "rollout.mcp[0]")]) as tools:
            names = ("MY_SECRET", "OTHER_SECRET", "PLAIN")
            return [(await ask(tools, "variable", name=name)).text for name in names]

    assert run(main()) == ["s1", "not set", "p"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"command": ["no-such-program-here"]}, "No such file"),
        ({"command": [sys.executable, "-c", "print('hello')"]}, "rollout.mcp[0]: the MCP server"),
        ({"url": "http://127.0.0.1:9/mcp"}, "rollout.mcp[0]: the MCP server http://127.0.0.1:9"),
        ({"url": "http://127.0.0.1:9/mcp", "headers_env": {"Authorization": "NOT_SET"}}, "variable NOT_SET is not set"),
    ],
)
def test_a_server_that_cannot_be_used_is_an_error_of_the_configuration(settings: Any, problem: str) -> None:
    async def main() -> None:
        async with configured_tools(RolloutConfig(mcp=[McpConfig(**settings)])):
            pass

    with pytest.raises(ConfigError) as raised:
        run(main())
    assert problem in str(raised.value)


def test_headers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "Bearer 123")
    seen: list[bytes] = []

    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            config = McpConfig(url=f"http://127.0.0.1:{port}/mcp", headers_env={"Authorization": "TOKEN"})
            with pytest.raises(ConfigError, match="the MCP server http"):
                await McpServer(config, "rollout.mcp[0]").open()

    run(main())
    assert b"authorization: bearer 123" in seen[0].lower()


def test_two_servers_with_one_tool_are_an_error() -> None:
    async def main() -> None:
        async with configured_tools(RolloutConfig(mcp=[STDIO, STDIO])):
            pass

    with pytest.raises(ConfigError, match=r"one in rollout\.mcp\[0\] and one in rollout\.mcp\[1\]"):
        run(main())


@pytest.mark.parametrize(
    "settings", [{}, {"command": ["a"], "url": "http://a"}, {"url": "ftp://a"}, {"url": "http://a", "env": {"A": "b"}}]
)
def test_a_server_is_a_program_or_an_address(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"either command or url|begin with http|belong to command"):
        McpConfig(**settings)
