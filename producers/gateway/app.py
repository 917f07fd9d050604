"""Serves the protocols over HTTP, as a Starlette application around :class:`~producers.gateway.contract.Sessions`.

The paths are those of the SDKs. ``/v1/...`` takes the session from the API key, ``/s/{session}/v1/...`` from the path.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from producers.gateway.access import NAME, Access
from producers.gateway.anthropic_answer import MessageAnswer
from producers.gateway.anthropic_messages import parse_messages
from producers.gateway.chat import parse_chat
from producers.gateway.chat_answer import ChatAnswer
from producers.gateway.contract import SessionOpening, Sessions
from producers.gateway.faults import Fault, anthropic_error, openai_error
from producers.gateway.json_body import parse_object
from producers.gateway.pieces import data
from producers.gateway.response_answer import ResponseAnswer
from producers.gateway.response_store import ResponseStore
from producers.gateway.responses import parse_response, previous_id
from producers.gateway.reward_body import parse_reward
from producers.gateway.serving import BodyError, Dialect, Exchange, Written, api_key, explain, fault_response, read_body
from producers.gateway.session_groups import parse_group


@dataclass(frozen=True, slots=True)
class Limits:
    """What the application allows each request."""

    body_bytes: int = 8 * 1024 * 1024
    body_deadline_s: float = 60.0
    """How long a body may take to arrive."""
    keep_alive_s: float = 10.0
    """Seconds between the comments of a stream that waits for its turn."""


OPENAI = Dialect(openai_error, lambda fault: data(openai_error(fault)))
RESPONSES = Dialect(
    openai_error,
    # The SDK looks for "error", other clients for the fields of the event.
    lambda fault: data(
        {"type": "error", "code": fault.code, "message": fault.message, "param": fault.param, "sequence_number": 0}
        | openai_error(fault),
        "error",
    ),
)
ANTHROPIC = Dialect(anthropic_error, lambda fault: data(anthropic_error(fault), "error"))


def make_app(
    sessions: Sessions, access: Access, limits: Limits | None = None, opening: SessionOpening | None = None
) -> Starlette:
    """Return the application. It holds nothing but the bounded store of responses; sessions outlive it.

    ``opening`` lets agents open and end sessions by themselves.
    """
    server = _Server(sessions, access, limits or Limits())
    routes = []
    for prefix in ("", "/s/{session}"):
        routes += [
            Route(f"{prefix}/v1/chat/completions", server.handler(OPENAI, server.chat), methods=["POST"]),
            Route(f"{prefix}/v1/responses", server.handler(RESPONSES, server.respond), methods=["POST"]),
            Route(f"{prefix}/v1/messages", server.handler(ANTHROPIC, server.message), methods=["POST"]),
            Route(f"{prefix}/v1/messages/count_tokens", server.handler(ANTHROPIC, server.count), methods=["POST"]),
            Route(f"{prefix}/v1/models", server.models, methods=["GET"]),
        ]
    routes += [
        Route("/rft/sessions/{session}/reward", server.handler(OPENAI, server.reward), methods=["POST"]),
        Route("/rft/sessions/{session}", server.describe, methods=["GET"]),
    ]
    if opening is not None:
        administration = _Administration(server, access, opening)
        routes += [
            Route("/rft/sessions", administration.open, methods=["POST"]),
            Route("/rft/sessions/{session}/end", server.handler(OPENAI, administration.end), methods=["POST"]),
        ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _unexpected})


class _Finished(Protocol):
    """Is an answer that a protocol can write."""

    def whole(self) -> dict[str, Any]: ...

    def events(self) -> Iterator[bytes]: ...


class _Server:
    """Holds what the handlers share. One handler a protocol: parse, ask the sessions, write."""

    def __init__(self, sessions: Sessions, access: Access, limits: Limits) -> None:
        self._sessions = sessions
        self._access = access
        self._limits = limits
        self._responses = ResponseStore()

    def handler(
        self, dialect: Dialect, handle: Callable[[str, dict[str, Any]], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that finds the session, reads the body and answers what goes wrong with either."""

        async def endpoint(request: Request) -> Response:
            session = self._session(request)
            if isinstance(session, Fault):
                return fault_response(session, dialect)
            return await self.answer(request, dialect, lambda body: handle(session, body))

        return endpoint

    async def answer(
        self, request: Request, dialect: Dialect, handle: Callable[[dict[str, Any]], Response]
    ) -> Response:
        """Read the body and answer what goes wrong with it."""
        try:
            body = await read_body(request, most_bytes=self._limits.body_bytes, deadline_s=self._limits.body_deadline_s)
            return handle(parse_object(body))
        except BodyError as error:
            return fault_response(error.fault, dialect)
        # A stranger's body: whatever it does to the code that reads it, the answer is an error of the protocol.
        except Exception as error:
            return fault_response(explain(error), dialect)

    def chat(self, session: str, body: dict[str, Any]) -> Response:
        request, options = parse_chat(body)

        async def work() -> Written:
            answer = await self._sessions.complete(session, request)
            made = ChatAnswer(
                answer, options, session, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), self._sessions.decode
            )
            return await _write(made, stream=options.stream)

        return self.exchange(work, OPENAI, streams=options.stream)

    def respond(self, session: str, body: dict[str, Any]) -> Response:
        previous = previous_id(body)
        before = self._responses.messages(session, previous) if previous else ()
        request, options = parse_response(body, before)

        async def work() -> Written:
            answer = await self._sessions.complete(session, request)
            made = ResponseAnswer(
                answer, request, options, session, uuid.uuid4().hex, int(time.time()), self._sessions.decode
            )
            if options.store:
                self._responses.keep(session, made.id, (*options.history, made.message()), previous)
            return await _write(made, stream=options.stream)

        return self.exchange(work, RESPONSES, streams=options.stream)

    def message(self, session: str, body: dict[str, Any]) -> Response:
        request, options = parse_messages(body)

        async def work() -> Written:
            answer = await self._sessions.complete(session, request)
            made = MessageAnswer(answer, request, options, session, f"msg_{uuid.uuid4().hex}", self._sessions.decode)
            return await _write(made, stream=options.stream)

        return self.exchange(work, ANTHROPIC, streams=options.stream)

    def count(self, session: str, body: dict[str, Any]) -> Response:
        request, _ = parse_messages(body, counting=True)

        async def work() -> Written:
            return Written({"input_tokens": await self._sessions.count(session, request)})

        return self.exchange(work, ANTHROPIC)

    def reward(self, session: str, body: dict[str, Any]) -> Response:
        reward = parse_reward(body)

        async def work() -> Written:
            await self._sessions.reward(session, reward)
            return Written({"session": session, "revision": reward.revision})

        return self.exchange(work, OPENAI)

    async def describe(self, request: Request) -> Response:
        session = self._session(request)
        if isinstance(session, Fault):
            return fault_response(session, OPENAI)
        try:
            return JSONResponse({"session": session} | dict(await self._sessions.describe(session)))
        except Exception as error:
            return fault_response(explain(error), OPENAI)

    async def models(self, request: Request) -> Response:
        """Answer in the shape of both protocols at once: their fields do not contradict each other."""
        key = api_key(request)
        if isinstance(session := self._session(request), Fault) and not self._access.is_token(key):
            return fault_response(session, OPENAI)
        names = list(self._sessions.models)
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "stream-rft"}
            | {"type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
            for name in names
        ]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return JSONResponse({"object": "list", "data": models, "has_more": False} | ends)

    def exchange(self, work: Callable[[], Awaitable[Written]], dialect: Dialect, *, streams: bool = False) -> Response:
        """Return the response of an answer that is still to be made."""
        return Exchange(work, dialect, streams=streams, interval_s=self._limits.keep_alive_s)

    def _session(self, request: Request) -> str | Fault:
        """Return the session that a request is for, or why it may not use it."""
        key, named = api_key(request), request.path_params.get("session")
        if named is None:
            session = self._access.session(key)
            if session is not None:
                return session
            if key and self._access.is_token(key):
                return Fault(
                    401, "the API key names no session: use a session's key, token:session, or the path /s/{session}/v1"
                )
            return Fault(401, "the API key is missing or wrong: use the key of a session", "invalid_api_key")
        if not self._access.allows(key, named):
            return Fault(401, "the API key is missing or wrong: use the key of this session", "invalid_api_key")
        if not NAME.fullmatch(named):
            return Fault(404, "the path names no session: 1 to 200 of the characters A-Z a-z 0-9 _ . : @ ~ -")
        return named


class _Administration:
    """Handles what opens and ends sessions."""

    def __init__(self, server: _Server, access: Access, opening: SessionOpening) -> None:
        self._server = server
        self._access = access
        self._opening = opening

    async def open(self, request: Request) -> Response:
        if not self._access.is_token(api_key(request)):
            return fault_response(
                Fault(401, "the API key is missing or wrong: the gateway's token opens sessions", "invalid_api_key"),
                OPENAI,
            )
        return await self._server.answer(request, OPENAI, self._open)

    def end(self, session: str, body: dict[str, Any]) -> Response:
        reward = parse_reward(body) if body else None

        async def work() -> Written:
            return Written({"session": session} | dict(await self._opening.end(session, reward)))

        return self._server.exchange(work, OPENAI)

    def _open(self, body: dict[str, Any]) -> Response:
        group = parse_group(body)

        async def work() -> Written:
            opened = dict(await self._opening.open_group(group))
            keys = [{"session": name, "api_key": self._access.key(name)} for name in opened["sessions"]]
            return Written(opened | {"sessions": keys})

        return self._server.exchange(work, OPENAI)


async def _write(made: _Finished, *, stream: bool) -> Written:
    """Write an answer in a thread: decoding the tokens of a long turn one by one takes a while.

    The whole stream is written before it is sent, so that an error in it has a status of its own.
    """
    if stream:
        return Written(events=await asyncio.to_thread(lambda: list(made.events())))
    return Written(await asyncio.to_thread(made.whole))


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer for paths and methods that there are not."""
    assert isinstance(error, HTTPException)
    known = {404: "there is no such path", 405: "this path does not take this method"}
    return fault_response(Fault(error.status_code, known.get(error.status_code, "the request is refused")), OPENAI)


async def _unexpected(request: Request, error: Exception) -> Response:
    return fault_response(explain(error), OPENAI)
