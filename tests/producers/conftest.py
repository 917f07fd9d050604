"""Tiny models for explorers, and configurations that name them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rft.config import Config, PolicyConfig
from rft.log.topics import ensure_topics
from rft.policy.transformers.policy import TransformersPolicy
from tests.producers.chat_model import make_chat_model
from tests.producers.recording_policy import RecordingPolicy
from tests.rft.policy.tiny_policy import make_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture(scope="session")
def role_config(embedded_broker: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """``role_config(**sections)``: a run of its own on the embedded broker or on ``servers``, its topics made."""

    def make(servers: str = embedded_broker, **sections: Any) -> Config:
        sections["run"] = {"folder": str(tmp_path_factory.mktemp("run")), "name": "test"}
        sections["broker"] = {"kind": "external", "bootstrap_servers": servers}
        sections["log"] = {"namespace": f"test-{uuid.uuid4().hex[:12]}"}
        sections["policy"] = {"model": str(model), "device": "cpu"}
        config = Config.model_validate(sections)
        ensure_topics(config)
        return config

    return make


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def chat_policy(chat_model: Path) -> Iterator[TransformersPolicy]:
    policy = TransformersPolicy(PolicyConfig(model=str(chat_model), device="cpu", max_batch=64))
    yield policy
    policy.close()


@pytest.fixture
def recording(chat_policy: TransformersPolicy) -> RecordingPolicy:
    """A policy that keeps what it reads and writes."""
    return RecordingPolicy(chat_policy)
