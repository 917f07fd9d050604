"""Run with `python -m pytest`: the agent works against a server that always answers the same, and the tasks load."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from my_agent import solve

from rft.config_sources import load_config
from rft.tasks import open_sources

CONFIG = Path(__file__).with_name("run.toml")


class SaysCba(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "cba"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "policy", "choices": [choice]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def base_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SaysCba)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_the_reward_is_the_share_of_words_that_are_right(base_url: str) -> None:
    async def rewards() -> list[float]:
        prompts = ("abc abc", "abc abd", "abd abd")
        return [await solve(base_url, "key", SimpleNamespace(prompt=prompt)) for prompt in prompts]

    assert asyncio.run(rewards()) == [1, 0.5, 0]


def test_the_configuration_loads_and_no_held_out_task_is_trained() -> None:
    splits = open_sources(load_config(CONFIG))
    held_out = {splits.held_out[number].prompt for number in range(len(splits.held_out))}
    assert held_out
    assert held_out.isdisjoint(splits.train[number].prompt for number in range(200))
