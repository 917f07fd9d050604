"""Token providers as a user would write them, for tests that name them in ``broker.token_provider``."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

from rft.config import BrokerConfig

_answers: dict[str, Callable[[], object]] = {}
_threads: dict[str, list[str]] = {}


def scripted(broker: BrokerConfig) -> object:
    assert broker.oauth.scope is not None
    _threads[broker.oauth.scope].append(threading.current_thread().name)
    return _answers[broker.oauth.scope]()


def script(answer: Callable[[], object], **oauth: Any) -> dict[str, Any]:
    """Return settings of ``broker`` with a provider of their own that returns what ``answer`` does."""
    scope = uuid.uuid4().hex
    _answers[scope], _threads[scope] = answer, []
    return {"token_provider": "token_providers:scripted", "oauth": {"scope": scope, **oauth}}


def threads(broker: BrokerConfig) -> list[str]:
    """Return the name of the thread of each call."""
    assert broker.oauth.scope is not None
    return _threads[broker.oauth.scope]
