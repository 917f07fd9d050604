"""Sessions in memory over real conversations and a real policy, and a server that serves them on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import uvicorn

from producers.gateway.access import Access
from producers.gateway.app import Limits, make_app
from producers.gateway.contract import Answer, ChatRequest, SessionReward, UnknownSessionError
from rft.policy.base import Policy, Sampling
from rft.workflows.conversation import Conversation
from rft.workflows.messages import Message, Reply, ToolCall, plain_reply
from schemas.events import Task

TASK = Task("train-00000000", 0, "train", "test", "", "", 1, 8, 1.0, 1.0, 0, 0, 0)


class ConversationSessions:
    """Keeps one or more conversations a session: it goes on with the one whose messages begin the request's."""

    models: Sequence[str] = ("tiny",)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.conversations: dict[str, list[Conversation]] = {}
        self.requests: list[ChatRequest] = []
        self.rewards: list[tuple[str, SessionReward]] = []
        self.failure: Exception | None = None
        """Raised instead of the next answers, if set."""
        self.thinks = False
        """Whether a turn has thinking before its text."""
        self.delay_s = 0.0
        self.canceled = 0

    async def complete(self, session: str, request: ChatRequest) -> Answer:
        self.requests.append(request)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        if self.failure is not None:
            raise self.failure
        turns, prompt = [], []
        for _ in range(request.n):
            conversation = self._conversation(session, request)
            conversation.parse = lambda text: self._reply(request, text)
            turns.append(
                await conversation.generate(
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    stop=request.stop,
                )
            )
            prompt = conversation.rows()[-1].tokens[: turns[-1].prompt_tokens].tolist()
        return Answer(tuple(turns), prompt)

    async def count(self, session: str, request: ChatRequest) -> int:
        rendered = self.policy.chat.render(request.messages, list(request.tools), prompting=True)
        return len(self.policy.chat.encode(rendered))

    async def reward(self, session: str, reward: SessionReward) -> None:
        self._known(session)
        self.rewards.append((session, reward))

    async def describe(self, session: str) -> Mapping[str, Any]:
        return {"state": "open", "turns": sum(len(made.turns) for made in self._known(session))}

    def decode(self, tokens: Sequence[int]) -> str:
        return self.policy.chat.decode(tokens, special=True)

    def _known(self, session: str) -> list[Conversation]:
        if session not in self.conversations:
            raise UnknownSessionError(f"there is no session {session}")
        return self.conversations[session]

    def _conversation(self, session: str, request: ChatRequest) -> Conversation:
        kept = self.conversations.setdefault(session, [])
        asked = list(request.messages)
        for conversation in kept:
            known = [canonical(message) for message in conversation.messages]
            if known and len(asked) > len(known) and [canonical(message) for message in asked[: len(known)]] == known:
                conversation.add(*asked[len(known) :])
                return conversation
        conversation = Conversation(TASK, self.policy, Sampling(2048, temperature=1.0, seed=7))
        conversation.tools = list(request.tools)
        conversation.add(*asked)
        kept.append(conversation)
        return conversation

    def _reply(self, request: ChatRequest, text: str) -> Reply:
        """Take a turn for a call of the first tool, if there is one and the user spoke last."""
        if request.tools and request.messages[-1]["role"] == "user":
            name = request.tools[0]["function"]["name"]
            return Reply("", "", (ToolCall(f"call_{len(self.requests)}", name, {"city": "Łódź", "days": 2}),))
        return Reply(text, "Let me think.\nYes.") if self.thinks else plain_reply(text)


def canonical(message: Message) -> Message:
    """Return what is compared of a message."""
    calls = [
        {**call, "function": {**call["function"], "arguments": arguments(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return {"role": message["role"], "content": message["content"], "calls": calls, "id": message.get("tool_call_id")}


def arguments(given: Any) -> Any:
    return json.loads(given) if isinstance(given, str) else given


class GatewayServer:
    """Serves sessions by uvicorn in a thread, on a free loopback port."""

    def __init__(self, sessions: ConversationSessions, token: str | None = None, limits: Limits | None = None) -> None:
        self.access = Access(token)
        app = make_app(sessions, self.access, limits)
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            threading.Event().wait(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
