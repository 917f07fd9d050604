"""Sends an answer that may take minutes: whole or as a stream, and cancels its work if the client hangs up.

The policy gives whole turns, so a stream begins when its turn is finished; until then it sends comments, which keep
proxies from closing the connection. What fails within the first interval is answered with its own HTTP status, what
fails later by an error event in the stream.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from producers.gateway.faults import UNEXPECTED, Fault, fault_of
from producers.gateway.pieces import KEEP_ALIVE
from rft.errors import PolicyError

logger = logging.getLogger(__name__)
CANCELED = PolicyError("the work on the turn was canceled")


class BodyError(Exception):
    """The body of a request cannot be taken; holds the fault to answer with."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Written:
    """A finished answer: its body, or the events of its stream."""

    whole: Mapping[str, Any] | None = None
    events: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a protocol writes faults: as a body, and in the middle of a stream."""

    body: Callable[[Fault], dict[str, Any]]
    event: Callable[[Fault], bytes]


def api_key(request: Request) -> str:
    """Return the API key of a request, empty if there is none."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip()
    return request.headers.get("x-api-key", "").strip()


async def read_body(request: Request, *, most_bytes: int, deadline_s: float) -> bytes:
    """Return the body of a request. Raises BodyError if it is too large, too slow or no JSON by its type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A page in a browser can send other types to a port of this machine without being asked.
        raise BodyError(Fault(415, "the content type must be application/json"))
    too_large = BodyError(Fault(413, f"the body is larger than {most_bytes} bytes", "request_too_large"))
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise too_large
    except TimeoutError as error:
        raise BodyError(Fault(408, f"the body did not arrive within {deadline_s:g} s")) from error
    except ClientDisconnect as error:
        raise BodyError(Fault(400, "the body is incomplete")) from error
    return bytes(body)


def fault_response(fault: Fault, dialect: Dialect) -> Response:
    """Return a fault as a response of its own."""
    headers = {}
    if fault.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(fault.retry_after_s)))
    if fault.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(dialect.body(fault), fault.status, headers)


def explain(error: BaseException) -> Fault:
    """Return the fault that an error means. One that nobody expected is logged and not shown."""
    fault = fault_of(error)
    if fault is None:
        logger.error("a request failed unexpectedly", exc_info=error)
        return UNEXPECTED
    return fault


class Exchange(Response):
    """Is the response of an answer that is still to be made."""

    def __init__(
        self, work: Callable[[], Awaitable[Written]], dialect: Dialect, *, streams: bool, interval_s: float
    ) -> None:
        """``work`` makes the answer; it is canceled if the client hangs up. Comments come each ``interval_s``."""
        super().__init__()
        self._work = work
        self._dialect = dialect
        self._streams = streams
        self._interval_s = interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._work())
        gone = asyncio.create_task(_disconnected(receive))
        started = False
        try:
            while not work.done():
                timeout = self._interval_s if self._streams else None
                await asyncio.wait({work, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                if not work.done():
                    await _send_stream(send, KEEP_ALIVE, begin=not started)
                    started = True
            await self._finish(work, scope, receive, send, started)
        except OSError:
            logger.debug("a client hung up while it was answered")
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _finish(
        self, work: asyncio.Future[Written], scope: Scope, receive: Receive, send: Send, started: bool
    ) -> None:
        error = CANCELED if work.cancelled() else work.exception()
        if error is not None:
            fault = explain(error)
            if started:
                await _send_stream(send, self._dialect.event(fault), begin=False, end=True)
            else:
                await fault_response(fault, self._dialect)(scope, receive, send)
            return
        written = work.result()
        if written.events is None:
            await JSONResponse(written.whole)(scope, receive, send)
            return
        for event in written.events:
            await _send_stream(send, event, begin=not started)
            started = True
        await _send_stream(send, b"", begin=not started, end=True)


async def _send_stream(send: Send, chunk: bytes, *, begin: bool, end: bool = False) -> None:
    if begin:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    message: Message = {"type": "http.response.body", "body": chunk, "more_body": not end}
    await send(message)


async def _disconnected(receive: Receive) -> None:
    """Return when the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
