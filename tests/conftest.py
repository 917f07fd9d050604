"""Brokers for tests: real ones, shared by a whole session; each test gets topics of its own by its namespace. And the
quickstart's model.

`embedded_broker` is the in-memory one, `kafka_broker` Apache Kafka from KAFKA_HOME, `registry` a schema registry from
REGISTRY_HOME. Without these variables the tests that need them are skipped, unless the environment's RFT_REQUIRE names
`kafka` or `registry`: then they fail.
"""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import ConfigMaker, require_kafka_home, require_registry_home
from hypothesis import settings
from quickstart import make_quickstart_model
from registry_process import RegistryProcess

from infra.broker import open_broker
from rft.config import Config
from rft.log.topics import ensure_topics

# An example that is slow on a busy machine is not wrong.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

# Started in the background, a shell's children ignore interrupts, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """vLLM and DeepSpeed warn on every import; elsewhere a warning is an error (pyproject.toml)."""
    for item in items:
        if item.get_closest_marker("vllm") or item.get_closest_marker("deepspeed"):
            item.add_marker(pytest.mark.filterwarnings("default"))


def _run_broker(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker = open_broker(Config.model_validate({"broker": {"kind": kind}}), tmp_path_factory.mktemp(kind))
    assert broker is not None
    servers = broker.start()
    yield servers
    broker.stop()


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of an embedded broker."""
    yield from _run_broker("embedded", tmp_path_factory)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of an Apache Kafka node. Mark tests that use it with ``pytest.mark.kafka``."""
    require_kafka_home()
    yield from _run_broker("kafka", tmp_path_factory)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A real schema registry. Mark tests that use it with ``pytest.mark.registry``."""
    process = RegistryProcess(require_registry_home(), tmp_path_factory.mktemp("registry"))
    process.start()
    yield process
    process.stop()


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_broker(request: pytest.FixtureRequest) -> str:
    """Bootstrap servers of each kind of broker in turn."""
    servers: str = request.getfixturevalue(f"{request.param}_broker")
    return servers


@pytest.fixture
def make_config() -> ConfigMaker:
    """Return ``make_config(servers, **sections)``, which makes a configuration on a broker in a new namespace."""

    def make(servers: str, **sections: Any) -> Config:
        sections["broker"] = {"kind": "external", "bootstrap_servers": servers, **sections.get("broker", {})}
        sections["log"] = {"namespace": f"test-{uuid.uuid4().hex[:12]}", **sections.get("log", {})}
        return Config.model_validate(sections)

    return make


@pytest.fixture
def log_config(embedded_broker: str, make_config: ConfigMaker) -> Config:
    """A configuration on the embedded broker, its topics made."""
    config = make_config(embedded_broker)
    ensure_topics(config)
    return config


@pytest.fixture
def any_config(any_broker: str, make_config: ConfigMaker) -> Config:
    """A configuration on each kind of broker in turn, its topics made."""
    config = make_config(any_broker)
    ensure_topics(config)
    return config


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's model."""
    return make_quickstart_model(tmp_path_factory.mktemp("model") / "tiny")
