"""A real HTTP server with OpenAI's completions API over a tiny policy. Tests can make it leave things out."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from rft.policy.base import Sampling
from rft.policy.transformers.policy import TransformersPolicy


class CompletionsServer:
    """Serves ``policy`` on a free loopback port. Its public attributes may be changed at any time."""

    def __init__(self, policy: TransformersPolicy) -> None:
        self.policy = policy
        self.gives_logprobs = True
        self.gives_token_ids = True
        self.gives_raw_logprobs = False
        """Returns logprobs of temperature 1 whatever was sampled from, as vLLM's server does by default."""
        self.key = ""
        """The API key that clients must send, if set."""
        self.models = ["tiny"]
        self.broken = False
        self.seen_keys: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer({"data": [{"id": name} for name in server.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.answer({"choices": [] if server.broken else [server.complete(body)]})

            def answer(self, value: dict[str, Any]) -> None:
                server.seen_keys.append(self.headers["authorization"])
                allowed = not server.key or self.headers["authorization"] == f"Bearer {server.key}"
                payload = json.dumps(value if allowed else {"error": "unauthorized"}).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        stop = tuple(body.get("stop") or ())
        sampling = Sampling(body["max_tokens"], body["temperature"], body["top_p"], body["seed"], stop)
        written = asyncio.run(self.policy.generate(prompt, sampling))
        with torch.no_grad():
            read = torch.tensor([[*prompt, *written.tokens.tolist()]])
            logits = self.policy._model(input_ids=read).logits[0, len(prompt) - 1 : -1]
        raw = self.gives_raw_logprobs or not sampling.temperature
        distribution = torch.log_softmax(logits / (1.0 if raw else sampling.temperature), dim=-1)
        drawn = distribution.gather(-1, torch.tensor(written.tokens.tolist())[:, None]).squeeze(-1)
        choice: dict[str, Any] = {"text": "", "finish_reason": written.finish_reason}
        if self.gives_token_ids:
            choice["token_ids"] = written.tokens.tolist()
        if self.gives_logprobs:
            top = [{str(int(row.argmax())): float(row.max())} for row in distribution]
            choice["logprobs"] = {"token_logprobs": drawn.tolist(), "top_logprobs": top}
        return choice

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
