"""Starts an Apache Kafka node that lets clients in by the JWTs of a token server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certificates import make_certificates
from token_server import AUDIENCE, ISSUER, TokenServer

from infra.broker import BrokerProcess
from infra.kafka_node import KafkaNode
from infra.processes import HOST, free_port
from rft.config import BrokerConfig, Config

_OAUTH = "org.apache.kafka.common.security.oauthbearer"
REAUTH_S = 4
"""A connection must log in again within this time, or earlier if its token expires."""


@dataclass
class OAuthNode:
    broker: BrokerProcess
    port: int
    pki: Path
    tokens: TokenServer

    def config(self, **changes: Any) -> BrokerConfig:
        """Return the right settings, with ``changes``."""
        settings = {
            "kind": "external",
            "bootstrap_servers": f"{HOST}:{self.port}",
            "security_protocol": "SASL_SSL",
            "ssl_cafile": self.pki / "ca.pem",
            **self.tokens.settings(),
        }
        return BrokerConfig(**(settings | changes))


class _Node(KafkaNode):
    def __init__(self, *args: Any, jwks: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._jwks = jwks

    def prepare(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        command, env = super().prepare(port)
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._jwks}"
        return [command[0], allowed, *command[1:]], env


def start_oauth_node(folder: Path, tokens: TokenServer) -> OAuthNode:
    make_certificates(folder)
    plain, port, controller = free_port(), free_port(), free_port()
    listeners = f"PLAINTEXT://{HOST}:{plain},OAUTH://{HOST}:{port}"
    jwks = f"{tokens.url}/jwks"
    settings = {
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,OAUTH:SASL_SSL",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "OAUTHBEARER",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "keystore.pem"),
        "listener.name.oauth.oauthbearer.sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
        "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": (
            f"{_OAUTH}.OAuthBearerValidatorCallbackHandler"
        ),
        "listener.name.oauth.oauthbearer.connections.max.reauth.ms": str(REAUTH_S * 1000),
        "sasl.oauthbearer.jwks.endpoint.url": jwks,
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.expected.issuer": ISSUER,
        "sasl.oauthbearer.clock.skew.seconds": "0",
    }
    kind = _Node(Config(), folder / "kafka", settings, jwks=jwks)
    broker = BrokerProcess(kind, plain, folder / "broker.log")
    broker.start()
    return OAuthNode(broker, port, folder, tokens)
