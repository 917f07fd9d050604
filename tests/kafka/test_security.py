"""Secure brokers accept the right settings; with wrong ones the error names the cause. The listeners are real."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from certificates import KEY_PASSWORD
from secure_node import SecureNode

from consumers.processors.faust_backend.app import broker_options
from rft.config import Config, LogConfig
from rft.config_toml import resolved_toml
from rft.errors import BrokerError
from rft.log.clients import make_admin, make_consumer, make_producer
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("listener", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", "MTLS"])
def test_the_right_settings_carry_events_through(secure_node: SecureNode, listener: str) -> None:
    config = Config(
        broker=secure_node.config(listener), log=LogConfig(namespace=f"test-{uuid.uuid4().hex[:8]}", partitions=1)
    )
    ensure_topics(config)
    with EventWriter(config, "writer") as writer, EventReader(config, "reader", ["dlq"]) as reader:
        writer.send_bytes("dlq", b"secret", key=b"k")
        writer.flush()
        assert [e.value for e in reader.poll(5)] == [b"secret"]


def test_a_client_certificate_whose_key_has_a_password_lets_all_clients_in(secure_node: SecureNode) -> None:
    keyfile = secure_node.pki / "client-encrypted.key"
    config = Config(broker=secure_node.config("MTLS", ssl_keyfile=keyfile, ssl_password=KEY_PASSWORD))
    assert KEY_PASSWORD not in resolved_toml(config)
    for make in (make_producer, make_consumer, make_admin):
        make(config, "me").close()
    assert "broker_credentials" in broker_options(config)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "wrong password": (
        "SASL_SSL",
        {"sasl_password": "wrong"},
        r"login of user 'rft' with SCRAM-SHA-512 failed: wrong user or password",
    ),
    "unknown user": ("SASL_PLAINTEXT", {"sasl_username": "nobody"}, r"login of user 'nobody'.* failed"),
    "mechanism not offered": ("SASL_SSL", {"sasl_mechanism": "PLAIN"}, r"does not offer PLAIN but SCRAM-SHA-512"),
    "unknown CA": ("SASL_SSL", {"ssl_cafile": "other-ca.pem"}, r"not signed by a CA we know .*set broker\.ssl_cafile"),
    "system CAs": ("SSL", {"ssl_cafile": None}, r"not signed by a CA we know"),
    "certificate for another host": ("SSL", {"bootstrap_servers": "localhost:{port}"}, r"not for localhost"),
    "no CA file": ("SSL", {"ssl_cafile": "missing.pem"}, r"broker\.ssl_cafile: there is no file"),
    "no certificates in the CA file": ("SSL", {"ssl_cafile": "server.ext"}, r"is no PEM file of certificates"),
    "no client certificate": ("MTLS", {"ssl_certfile": None, "ssl_keyfile": None}, r"ask for a client certificate"),
    "certificate of another CA": (
        "MTLS",
        {"ssl_certfile": "stranger.pem", "ssl_keyfile": "stranger.key"},
        r"does not accept the client certificate \S*stranger\.pem.*\(broker\.ssl_certfile\)",
    ),
    "key of another certificate": ("MTLS", {"ssl_keyfile": "stranger.key"}, r"no matching certificate and key"),
    "no password of the key": (
        "MTLS",
        {"ssl_keyfile": "client-encrypted.key"},
        r"password is needed for the key in \S*client-encrypted\.key\. Set RFT_BROKER__SSL_PASSWORD",
    ),
    "wrong password of the key": (
        "MTLS",
        {"ssl_keyfile": "client-encrypted.key", "ssl_password": "key-hunter3"},
        r"password does not decrypt the key",
    ),
    "TLS to a plain listener": ("PLAINTEXT", {"security_protocol": "SSL"}, r"The listener may speak no TLS"),
    "plain to a TLS listener": ("SSL", {"security_protocol": "PLAINTEXT"}, r"The listener may speak TLS"),
    "plain to a SASL_SSL listener": ("SASL_SSL", {"security_protocol": "SASL_PLAINTEXT"}, r"may speak TLS"),
    "no login to a listener that asks for it": (
        "SASL_PLAINTEXT",
        {"security_protocol": "PLAINTEXT"},
        r"asks for a login .*'SASL_PLAINTEXT'",
    ),
    "login to a listener that takes none": (
        "SSL",
        {"security_protocol": "SASL_SSL", "sasl_username": "a", "sasl_password": "b"},
        r"takes no SASL logins.* 'SSL'",
    ),
}


def make_faust_options(config: Config, _: str) -> Any:
    return broker_options(config)


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("make", [make_producer, make_consumer, make_admin, make_faust_options])
def test_wrong_settings_are_named_at_once(secure_node: SecureNode, fault: str, make: Any) -> None:
    listener, changes, message = WRONG[fault]
    changes = dict(changes)
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        if changes.get(key):
            changes[key] = secure_node.pki / changes[key]
    if "bootstrap_servers" in changes:
        changes["bootstrap_servers"] = changes["bootstrap_servers"].format(port=secure_node.ports[listener])
    config = Config(broker=secure_node.config(listener, **changes))
    started = time.monotonic()
    with pytest.raises(BrokerError, match=f"(?i){message}") as caught:
        make(config, "me")
    assert time.monotonic() - started < 3
    assert "\n" not in str(caught.value)
    assert "Unable to bootstrap" not in str(caught.value)
    assert "hunter" not in str(caught.value)
