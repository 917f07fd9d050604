"""Starts an Apache Kafka node with a listener for each security protocol, and makes certificates for it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def make_certificates(folder: Path) -> None:
    """Make a CA, a server certificate for 127.0.0.1 only, a client certificate, and a CA that signed nothing."""
    for ca in ("ca", "other-ca"):
        _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={ca}",
                 "-keyout", folder / f"{ca}.key", "-out", folder / f"{ca}.pem")  # fmt: skip
    for name, subject in (("server", f"IP:{HOST}"), ("client", "DNS:client")):
        extension = folder / f"{name}.ext"
        extension.write_text(f"subjectAltName={subject}\n")
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")  # fmt: skip
        _openssl("x509", "-req", "-days", "2", "-in", folder / f"{name}.csr", "-CA", folder / "ca.pem",
                 "-CAkey", folder / "ca.key", "-CAcreateserial", "-extfile", extension,
                 "-out", folder / f"{name}.pem")  # fmt: skip
    (folder / "keystore.pem").write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())


def _openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


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
