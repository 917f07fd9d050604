"""``[broker.oauth]``: where the shipped token provider gets tokens from (OAuth 2, client credentials)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from rft.config.section import Section


class OAuthConfig(Section):
    token_url: str | None = None
    """Token endpoint of the authorization server. HTTPS, except on loopback."""
    client_id: str | None = None
    """Who asks for tokens."""
    client_secret: SecretStr | None = None
    """Its secret. Set RFT_BROKER__OAUTH__CLIENT_SECRET rather than write it into a file."""
    scope: str | None = None
    """Scopes to ask for, separated by spaces."""
    audience: str | None = None
    """``audience`` parameter of the request, which some authorization servers want."""
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the token endpoint's certificate. By default the system's CAs."""
    extensions: dict[str, str] = Field(default={})
    """SASL extensions that the broker wants beside the token. Confluent Cloud wants ``logicalCluster`` and
    ``identityPoolId``."""

    @model_validator(mode="after")
    def _is_safe(self) -> OAuthConfig:
        if self.token_url is not None:
            url = urlsplit(self.token_url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError("token_url must begin with https://")
            if url.username is not None or url.password is not None:
                raise ValueError("token_url must not hold a user; set client_id and client_secret")
            if url.scheme == "http" and not _is_loopback(url.hostname):
                raise ValueError(
                    f"token_url: http:// would show the client secret to the network. Use https:// for {url.hostname}"
                )
        for name, value in self.extensions.items():
            if not (name.isascii() and name.isalpha()) or name == "auth" or not value.isprintable():
                raise ValueError(f"extensions: {name!r} must be letters other than 'auth', and its value printable")
        return self


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
