"""``[broker]``: which Kafka broker to use, and how clients connect to it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from rft.config.oauth import OAuthConfig
from rft.config.section import Section


class BrokerConfig(Section):
    kind: Literal["embedded", "kafka", "external"] = "embedded"
    """``embedded``: in-memory, nothing to install. ``kafka``: a local Apache Kafka node from ``kafka_home``, durable
    in the run's folder. ``external``: any cluster named by ``bootstrap_servers``."""
    bootstrap_servers: str | None = None
    """``host:port[,host:port]``. ``external`` requires it; for the other kinds the launcher sets it."""
    kafka_home: Path | None = None
    """Folder with Apache Kafka's ``libs/``, for ``kafka``. By default the environment's KAFKA_HOME."""
    port: int = Field(default=0, ge=0, le=65535)
    """Loopback port of a broker that `rft run` starts; 0 takes a free one."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How clients talk to an external cluster."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "SCRAM-SHA-512"
    """For the SASL protocols. ``OAUTHBEARER`` logs in with tokens of ``token_provider``, the others with
    ``sasl_username`` and ``sasl_password``."""
    sasl_username: str | None = None
    """For the SASL protocols."""
    sasl_password: SecretStr | None = None
    """For the SASL protocols. Set RFT_BROKER__SASL_PASSWORD rather than write it into a file."""
    token_provider: str | None = None
    """Where OAUTHBEARER gets tokens from: ``client_credentials`` (see ``broker.oauth``), or
    ``package.module:function`` with ``function(broker) -> rft.log.tokens.Token``."""
    token_timeout_s: float = Field(default=10.0, gt=0, le=120)
    """How long the token provider may take for one token."""
    oauth: OAuthConfig = OAuthConfig()
    """Settings of the provider ``client_credentials``."""
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the broker's certificate. By default the system's CAs."""
    ssl_certfile: Path | None = None
    """PEM client certificate, for mutual TLS."""
    ssl_keyfile: Path | None = None
    """PEM key of ``ssl_certfile``. By default it is in the same file."""
    ssl_password: SecretStr | None = None
    """Password of an encrypted key. Set RFT_BROKER__SSL_PASSWORD rather than write it into a file."""
    ssl_check_hostname: bool = True
    """Whether the broker's certificate must name the host that clients connect to."""
    rack: str | None = None
    """Rack or availability zone of this process, ``client.rack``. Consumers then fetch from a replica in the same rack,
    if the brokers allow it (``replica.selector.class``)."""
    connect_timeout_s: float = Field(default=4.0, gt=0, le=120)
    """How long a role that starts, or a command, waits for the broker before it gives up with the cause."""
    outage_s: float = Field(default=0.0, ge=0)
    """How long a role that works waits for a broker that went away before it ends the run; 0 waits for as long as the
    run lasts. A role says once a minute that it waits. `rft run` starts roles that found no broker again, and does not
    count that as a restart."""

    @model_validator(mode="after")
    def _complete(self) -> BrokerConfig:
        if self.kind == "external" and not self.bootstrap_servers:
            raise ValueError("kind = 'external' needs bootstrap_servers = 'host:port'")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile needs ssl_certfile, the certificate of that key")
        if self.token_provider is not None and self.sasl_mechanism != "OAUTHBEARER":
            raise ValueError("token_provider needs sasl_mechanism = 'OAUTHBEARER'")
        if self.security_protocol.startswith("SASL"):
            self._check_login()
        return self

    def _check_login(self) -> None:
        """Raise ValueError if something is missing that a SASL login needs."""
        if self.sasl_mechanism != "OAUTHBEARER":
            if not (self.sasl_username and self.sasl_password):
                raise ValueError(
                    f"security_protocol = '{self.security_protocol}' needs sasl_username and sasl_password"
                )
            return
        if self.token_provider is None:
            raise ValueError(
                "sasl_mechanism = 'OAUTHBEARER' needs token_provider = 'client_credentials' or "
                "'package.module:function'"
            )
        oauth = self.oauth
        if self.token_provider == "client_credentials" and not (
            oauth.token_url and oauth.client_id and oauth.client_secret
        ):
            raise ValueError(
                "token_provider = 'client_credentials' needs oauth.token_url, oauth.client_id and "
                "oauth.client_secret (set RFT_BROKER__OAUTH__CLIENT_SECRET)"
            )
