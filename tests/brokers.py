"""Skips tests that need a broker, or another part that not every machine has."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rft.config import BrokerConfig, Config

ConfigMaker = Callable[..., Config]


def required(name: str) -> bool:
    """Return whether RFT_REQUIRE turns a skip for lack of ``name`` into a failure."""
    return name in os.environ.get("RFT_REQUIRE", "").split(",")


def require_kafka_home() -> str:
    return _require_home("kafka", "KAFKA_HOME", "Apache Kafka")


def require_registry_home() -> str:
    return _require_home("registry", "REGISTRY_HOME", "schema registry")


def require_vllm() -> None:
    """Skip the test, or fail it, where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        _lacking("vllm", "vLLM is not installed (make vllm)")


def require_deepspeed() -> None:
    """Skip the test, or fail it, where DeepSpeed is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        _lacking("deepspeed", "DeepSpeed is not installed (pip install 'stream-rft[deepspeed]')")


def _require_home(name: str, variable: str, what: str) -> str:
    home = os.environ.get(variable)
    if not home:
        _lacking(name, f"{variable} is not set: no {what} to test on")
    return str(Path(home).absolute())  # tests change the working directory


def _lacking(name: str, reason: str) -> NoReturn:
    if required(name):
        pytest.fail(f"{reason}, and RFT_REQUIRE asks for it")
    pytest.skip(reason)


def with_broker(config: Config, **changes: Any) -> Config:
    """Return the configuration with some of its ``broker`` section changed."""
    return config.model_copy(update={"broker": BrokerConfig(**(config.broker.model_dump() | changes))})
