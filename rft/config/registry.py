"""``[registry]``: the schema registry, if there is one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from rft.config.section import Section


class RegistryConfig(Section):
    url: str | None = None
    """Base URL of a schema registry with Confluent's API (Confluent, Karapace, Apicurio's ``/apis/ccompat/v7``,
    Redpanda). Events then have Confluent's framing; without a registry they name their schema by fingerprint. This
    choice is permanent: a reader of events with Confluent's framing needs the registry."""
    username: str | None = None
    """For basic authentication. Confluent Cloud takes the API key."""
    password: SecretStr | None = None
    """For basic authentication. Set RFT_REGISTRY__PASSWORD rather than write it into a file."""
    token: SecretStr | None = None
    """Bearer token, instead of ``username`` and ``password``. Set RFT_REGISTRY__TOKEN rather than write it into a
    file."""
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the registry's certificate. By default the system's CAs."""
    ssl_certfile: Path | None = None
    """PEM client certificate, for mutual TLS."""
    ssl_keyfile: Path | None = None
    """PEM key of ``ssl_certfile``. By default it is in the same file."""
    ssl_password: SecretStr | None = None
    """Password of an encrypted key. Set RFT_REGISTRY__SSL_PASSWORD rather than write it into a file."""
    auto_register: bool = True
    """Register our schemas as ``<topic>-value``, with compatibility FULL_TRANSITIVE. If false, they must be registered
    already (`rft schemas register`)."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Longest wait for one answer."""
    patience_s: float = Field(default=20.0, ge=0)
    """How long a role waits for a registry that does not answer before it ends and is restarted. Processors wait
    without limit, so that no good event becomes a dead letter."""

    @model_validator(mode="after")
    def _complete(self) -> RegistryConfig:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if self.url is not None and "@" in self.url.partition("//")[2].partition("/")[0]:
            raise ValueError("url must not hold a user; set username and password")
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        if self.token is not None and self.username is not None:
            raise ValueError("set token, or username and password, but not both")
        if self.token is not None and not _is_header_text(self.token.get_secret_value()):
            raise ValueError("token must be printable ASCII without blanks. Is there a newline at its end?")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile needs ssl_certfile, the certificate of that key")
        return self


def _is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
