"""Builds the TLS and SASL settings of every Kafka client."""

from __future__ import annotations

import ssl
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.sasl.oauth import AbstractTokenProvider

from rft.config import BrokerConfig
from rft.errors import BrokerError
from rft.log.tls import make_tls
from rft.log.tokens import Token, TokenSource, token_source


def ssl_context(broker: BrokerConfig) -> ssl.SSLContext | None:
    """Return TLS settings for the broker's listener; None when it speaks no TLS.

    Raises BrokerError if a file cannot be used.
    """
    if "SSL" not in broker.security_protocol:
        return None
    context = make_tls(
        "broker",
        cafile=broker.ssl_cafile,
        certfile=broker.ssl_certfile,
        keyfile=broker.ssl_keyfile,
        password=broker.ssl_password,
        error=BrokerError,
    )
    context.check_hostname = broker.ssl_check_hostname
    return context


class _Tokens(AbstractTokenProvider):
    """Gives tokens to kafka-python, which asks in the thread of its connections."""

    def __init__(self, source: TokenSource) -> None:
        super().__init__()
        self._source = source

    def token(self) -> str:
        return self._current().value

    def extensions(self) -> dict[str, str]:
        return dict(self._current().extensions)

    def _current(self) -> Token:
        try:
            return self._source.token()
        except BrokerError as error:
            # To kafka-python, a failed connection: it tries again.
            raise KafkaConnectionError(str(error)) from None


def sasl_options(broker: BrokerConfig) -> dict[str, Any]:
    """Return SASL settings as kafka-python names them; nothing when the listener asks for no login."""
    if not broker.security_protocol.startswith("SASL"):
        return {}
    if broker.sasl_mechanism == "OAUTHBEARER":
        return {
            "sasl_mechanism": broker.sasl_mechanism,
            "sasl_oauth_token_provider": _Tokens(token_source(broker)),
        }
    return {
        "sasl_mechanism": broker.sasl_mechanism,
        "sasl_plain_username": broker.sasl_username,
        "sasl_plain_password": password(broker),
    }


def password(broker: BrokerConfig) -> str:
    """Return the SASL password in clear; empty if there is none."""
    return broker.sasl_password.get_secret_value() if broker.sasl_password else ""


def principal(broker: BrokerConfig) -> str:
    """Return who the broker takes us for, in words, for errors about rights."""
    if broker.security_protocol.startswith("SASL"):
        if broker.sasl_mechanism == "OAUTHBEARER":
            return f"the principal of the tokens of broker.token_provider = '{broker.token_provider}'"
        return f"user {broker.sasl_username}"
    if broker.security_protocol == "SSL" and broker.ssl_certfile is not None:
        return f"the subject of {broker.ssl_certfile}"
    return "the anonymous user"


def security_options(broker: BrokerConfig) -> dict[str, Any]:
    """Return TLS and SASL settings as kafka-python names them."""
    return {
        "security_protocol": broker.security_protocol,
        "ssl_context": ssl_context(broker),
        "ssl_check_hostname": broker.ssl_check_hostname,
        **sasl_options(broker),
    }
