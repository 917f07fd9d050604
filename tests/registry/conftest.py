"""Configurations with the real registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from brokers import ConfigMaker
from registry_process import RegistryProcess

from rft.config import Config
from rft.log.topics import ensure_topics


@pytest.fixture
def registry_config(embedded_broker: str, make_config: ConfigMaker, registry: RegistryProcess) -> Callable[..., Config]:
    """``registry_config(**settings)``: fresh topics and subjects; ``settings`` are of the section registry."""

    def make(**settings: Any) -> Config:
        config = make_config(embedded_broker, registry={"url": registry.url, **settings})
        ensure_topics(config)
        return config

    return make
