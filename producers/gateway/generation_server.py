"""Serves an explorer's policy to gateways: token ids in, token ids with logprobs and weight versions out."""

from __future__ import annotations

import platform
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from producers.gateway.explorer_keys import ExplorerKeys
from producers.gateway.faults import Fault
from producers.gateway.generation_wire import MAX_BODY_BYTES, PATH, read_request, write_generation
from producers.gateway.http_server import ANY_ADDRESS, HttpServer
from producers.gateway.json_body import parse_object
from producers.gateway.serving import BodyError, Dialect, Exchange, Written, api_key, explain, fault_response, read_body
from rft.config import GatewayConfig
from rft.policy.base import Policy

BODY_DEADLINE_S = 60.0
DIALECT = Dialect(lambda fault: {"message": fault.message}, lambda fault: b"")
RETRY_AFTER_S = 1.0


class GenerationServer:
    """Serves one policy on a thread of its own."""

    def __init__(self, config: GatewayConfig, secret: str, policy: Policy, ready: Callable[[], bool]) -> None:
        """Listen on ``gateway.explorer_listen``. Raises ConfigError if that is not possible.

        Args:
            config: Where to listen, and how many requests to serve at once.
            secret: What gateways prove themselves with.
            policy: Generates.
            ready: Whether the policy holds weights that were announced. Thread-safe.
        """
        self._policy = policy
        self._ready = ready
        self._most = config.max_requests
        self.under_way = 0
        """Requests that are served now."""
        self.answered = 0
        """Requests that were served."""
        self._keys = ExplorerKeys(secret)
        routes = [Route(PATH, self._generate, methods=["POST"])]
        self._server = HttpServer(Starlette(routes=routes), config.explorer_listen, "gateway.explorer_listen")
        everywhere = config.explorer_listen.rpartition(":")[0] in ANY_ADDRESS
        self.url = self._server.url(config.explorer_host or (platform.node() if everywhere else None))
        """Where gateways reach it."""
        self.proof = self._keys.proof(self.url)

    @property
    def error(self) -> Exception | None:
        """What ended the server, if it was not ``close``."""
        return self._server.error

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def close(self) -> None:
        """End the server. Gateways repeat the requests that are dropped elsewhere."""
        self._server.close()

    async def _generate(self, request: Request) -> Response:
        if not self._keys.opens(self.url, api_key(request)):
            return fault_response(Fault(401, "the key is missing or wrong"), DIALECT)
        try:
            body = await read_body(request, most_bytes=MAX_BODY_BYTES, deadline_s=BODY_DEADLINE_S)
            prompt, sampling = read_request(parse_object(body))
        except BodyError as error:
            return fault_response(error.fault, DIALECT)
        # A stranger's body: whatever it does to the code that reads it, the answer is an error.
        except Exception as error:
            return fault_response(explain(error), DIALECT)
        if not self._ready():
            return fault_response(Fault(503, "this explorer has no weights yet"), DIALECT)
        if self.under_way >= self._most:
            message = f"{self._most} requests are under way (gateway.max_requests)"
            return fault_response(Fault(429, message, retry_after_s=RETRY_AFTER_S), DIALECT)

        async def work() -> Written:
            self.under_way += 1
            try:
                return Written(write_generation(await self._policy.generate(prompt, sampling)))
            finally:
                self.under_way -= 1
                self.answered += 1

        return Exchange(work, DIALECT, streams=False, interval_s=0.0)
