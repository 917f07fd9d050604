"""Builds the TLS and SASL settings of every Kafka client."""

from __future__ import annotations

import ssl
from typing import Any

from rft.config import BrokerConfig
from rft.errors import BrokerError


def ssl_context(broker: BrokerConfig) -> ssl.SSLContext | None:
    """Return TLS settings for the broker's listener; None when it speaks no TLS.

    Raises BrokerError if a file cannot be used.
    """
    if "SSL" not in broker.security_protocol:
        return None
    for key, path in (
        ("ssl_cafile", broker.ssl_cafile),
        ("ssl_certfile", broker.ssl_certfile),
        ("ssl_keyfile", broker.ssl_keyfile),
    ):
        if path is not None and not path.is_file():
            raise BrokerError(f"broker.{key}: there is no file {path}")
    try:
        context = ssl.create_default_context(cafile=broker.ssl_cafile)
    except ssl.SSLError as error:
        raise BrokerError(f"broker.ssl_cafile: {broker.ssl_cafile} is no PEM file of certificates: {error}") from error
    context.check_hostname = broker.ssl_check_hostname
    if broker.ssl_certfile is not None:
        try:
            context.load_cert_chain(broker.ssl_certfile, broker.ssl_keyfile)
        except ssl.SSLError as error:
            raise BrokerError(
                f"broker.ssl_certfile, broker.ssl_keyfile: {broker.ssl_certfile} and {broker.ssl_keyfile} are no "
                f"matching certificate and key in PEM: {error}"
            ) from error
    return context


def sasl_options(broker: BrokerConfig) -> dict[str, Any]:
    """Return SASL settings as kafka-python names them; nothing when the listener asks for no login."""
    if not broker.security_protocol.startswith("SASL"):
        return {}
    return {
        "sasl_mechanism": broker.sasl_mechanism,
        "sasl_plain_username": broker.sasl_username,
        "sasl_plain_password": password(broker),
    }


def password(broker: BrokerConfig) -> str:
    """Return the SASL password in clear; empty if there is none."""
    return broker.sasl_password.get_secret_value() if broker.sasl_password else ""


def security_options(broker: BrokerConfig) -> dict[str, Any]:
    """Return TLS and SASL settings as kafka-python names them."""
    return {
        "security_protocol": broker.security_protocol,
        "ssl_context": ssl_context(broker),
        "ssl_check_hostname": broker.ssl_check_hostname,
        **sasl_options(broker),
    }
