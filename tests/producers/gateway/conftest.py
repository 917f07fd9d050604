"""One tiny chat policy, and a gateway over it on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conversation_sessions import ConversationSessions, GatewayServer
from tiny_chat import make_chat_model

from producers.gateway.app import Limits
from rft.config import PolicyConfig
from rft.policy.transformers.policy import TransformersPolicy


@pytest.fixture(scope="session")
def chat_policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersPolicy]:
    folder: Path = make_chat_model(tmp_path_factory.mktemp("chat"))
    policy = TransformersPolicy(PolicyConfig(model=str(folder), device="cpu"))
    yield policy
    policy.close()


@pytest.fixture
def sessions(chat_policy: TransformersPolicy) -> ConversationSessions:
    return ConversationSessions(chat_policy)


@pytest.fixture
def gateway(sessions: ConversationSessions) -> Iterator[GatewayServer]:
    """A gateway without a token: the API key is the session's name."""
    server = GatewayServer(sessions, limits=Limits(keep_alive_s=0.2))
    yield server
    server.close()
