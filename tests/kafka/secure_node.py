"""Starts an Apache Kafka node with a listener for each security protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certificates import make_certificates

from infra.broker import BrokerProcess
from infra.kafka_node import KafkaNode
from infra.processes import HOST, free_port
from rft.config import BrokerConfig, Config

USER, PASSWORD = "rft", "correct-horse"
_ADMIN = "admin-secret"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"


@dataclass
class SecureNode:
    broker: BrokerProcess
    ports: dict[str, int]
    """Port of each listener: PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL, MTLS."""
    pki: Path

    def config(self, listener: str, **changes: Any) -> BrokerConfig:
        """Return the right settings for ``listener``, with ``changes``."""
        protocol = "SSL" if listener == "MTLS" else listener
        settings: dict[str, Any] = {
            "kind": "external",
            "bootstrap_servers": f"{HOST}:{self.ports[listener]}",
            "security_protocol": protocol,
        }
        if "SSL" in protocol:
            settings["ssl_cafile"] = self.pki / "ca.pem"
        if "SASL" in protocol:
            settings |= {"sasl_username": USER, "sasl_password": PASSWORD}
        if listener == "MTLS":
            settings |= {"ssl_certfile": self.pki / "client.pem", "ssl_keyfile": self.pki / "client.key"}
        return BrokerConfig(**(settings | changes))


def start_secure_node(folder: Path) -> SecureNode:
    make_certificates(folder)
    protocols = {"SSL": "SSL", "SASL_PLAINTEXT": "SASL_PLAINTEXT", "SASL_SSL": "SASL_SSL", "MTLS": "SSL"}
    ports = {"PLAINTEXT": free_port()} | {name: free_port() for name in protocols}
    controller = free_port()
    listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
    settings = {
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
        + ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "keystore.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "listener.name.mtls.ssl.client.auth": "required",
    }
    for name in ("sasl_plaintext", "sasl_ssl"):
        login = f'{_SCRAM} username="admin" password="{_ADMIN}";'
        settings[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = login
    users = [
        argument
        for user, password in ((USER, PASSWORD), ("admin", _ADMIN))
        for argument in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")
    ]
    kind = KafkaNode(Config(), folder / "kafka", settings, users)
    broker = BrokerProcess(kind, ports["PLAINTEXT"], folder / "broker.log")
    broker.start()
    return SecureNode(broker, ports, folder)
