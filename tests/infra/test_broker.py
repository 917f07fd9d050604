"""Our own brokers start or say why they cannot, and leave nothing behind."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from brokers import require_kafka_home

from infra.broker import open_broker
from infra.processes import free_port
from rft.config import Config
from rft.errors import BrokerError, ConfigError
from rft.log.probe import probe


def config(**broker: object) -> Config:
    return Config.model_validate({"broker": broker})


def test_the_embedded_broker_serves_and_ends(tmp_path: Path) -> None:
    broker = open_broker(config(), tmp_path)
    assert broker is not None
    assert not broker.alive()
    servers = broker.start()
    assert broker.alive()
    probe(config().broker, [servers])
    broker.stop()
    assert not broker.alive()
    with pytest.raises(BrokerError, match="refused"):
        probe(config(connect_timeout_s=0.3).broker, [servers])


def test_a_configured_port_is_used(tmp_path: Path) -> None:
    port = free_port()
    broker = open_broker(config(port=port), tmp_path)
    assert broker is not None
    assert broker.start() == f"127.0.0.1:{port}"
    broker.stop()


def test_a_port_in_use_is_named_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        broker = open_broker(config(port=port), tmp_path)
        assert broker is not None
        started = time.monotonic()
        with pytest.raises(BrokerError, match=rf"port {port} is in use\. Set broker\.port"):
            broker.start()
    assert time.monotonic() - started < 1


def test_a_broker_starts_again_on_its_port(tmp_path: Path) -> None:
    broker = open_broker(config(), tmp_path)
    assert broker is not None
    first = broker.start()
    broker.stop()
    assert broker.start() == first
    broker.stop()


def test_an_external_broker_is_not_started(tmp_path: Path) -> None:
    assert open_broker(config(kind="external", bootstrap_servers="h:1"), tmp_path) is None


def test_security_settings_that_our_broker_does_not_support_are_refused(tmp_path: Path) -> None:
    secure = config(security_protocol="SASL_SSL", sasl_username="a", sasl_password="b")
    with pytest.raises(ConfigError, match="speaks PLAINTEXT only"):
        open_broker(secure, tmp_path)


def test_kafka_without_a_home_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    with pytest.raises(BrokerError, match=r"broker\.kafka_home or KAFKA_HOME"):
        open_broker(config(kind="kafka"), tmp_path)
    with pytest.raises(BrokerError, match=r"holds no Apache Kafka"):
        open_broker(config(kind="kafka", kafka_home=tmp_path), tmp_path)


@pytest.mark.kafka
def test_kafka_without_java_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = require_kafka_home()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BrokerError, match="needs Java 17"):
        open_broker(config(kind="kafka", kafka_home=home), tmp_path)


@pytest.mark.kafka
def test_kafka_that_cannot_start_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_kafka_home()
    broker = open_broker(config(kind="kafka"), tmp_path)
    assert broker is not None
    monkeypatch.setenv("KAFKA_HEAP_OPTS", "-XX:NoSuchOption")
    with pytest.raises(BrokerError, match=r"(?s)ended with exit code 1 while starting.*NoSuchOption"):
        broker.start()


@pytest.mark.kafka
def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    require_kafka_home()
    (tmp_path / "kafka").write_text("a file where the folder should be")
    broker = open_broker(config(kind="kafka"), tmp_path)
    assert broker is not None
    with pytest.raises(BrokerError, match=r"cannot prepare .*kafka"):
        broker.start()
