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
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the registry's certificate. By default the system's CAs."""
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
        return self
