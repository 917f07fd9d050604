"""What tests with real brokers share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from rft.config import BrokerConfig, Config

ConfigMaker = Callable[..., Config]


def required(name: str) -> bool:
    """Whether RFT_REQUIRE turns a skip for lack of ``name`` into a failure."""
    return name in os.environ.get("RFT_REQUIRE", "").split(",")


def require_kafka_home() -> str:
    return _require_home("kafka", "KAFKA_HOME", "Apache Kafka")


def require_registry_home() -> str:
    return _require_home("registry", "REGISTRY_HOME", "schema registry")


def _require_home(name: str, variable: str, what: str) -> str:
    home = os.environ.get(variable)
    if home:
        return home
    reason = f"{variable} is not set: no {what} to test on"
    if required(name):
        pytest.fail(f"{reason}, and RFT_REQUIRE asks for it")
    pytest.skip(reason)


def with_broker(config: Config, **changes: Any) -> Config:
    """The configuration with some of its ``broker`` section changed."""
    return config.model_copy(update={"broker": BrokerConfig(**(config.broker.model_dump() | changes))})
