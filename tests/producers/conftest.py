"""A tiny model for explorers, and configurations that name it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft.config import Config
from rft.log.topics import ensure_topics
from tests.conftest import ConfigMaker
from tests.rft.policy.tiny_policy import make_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture
def role_config(embedded_broker: str, make_config: ConfigMaker, model: Path, tmp_path: Path) -> Callable[..., Config]:
    """``role_config(**sections)``: a run of its own on the embedded broker, its topics made."""

    def make(**sections: Any) -> Config:
        sections["run"] = {"folder": str(tmp_path), "name": "test"}
        sections["policy"] = {"model": str(model), "device": "cpu", **sections.get("policy", {})}
        config = make_config(embedded_broker, **sections)
        ensure_topics(config)
        return config

    return make
