"""Gets tokens from an OAuth 2 token endpoint with client credentials (RFC 6749, 4.4). It is a token provider."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import quote_plus

import httpx

from rft.config.oauth import OAuthConfig
from rft.errors import BrokerError, OutageError, first_line
from rft.log.tls import make_tls
from rft.log.tokens import Token

_TIMEOUT_S = 5.0
"""Longest wait for a connection, and for each part of the answer. ``broker.token_timeout_s`` limits the whole."""
_MAX_ANSWER_BYTES = 256 * 1024
_DEFAULT_LIFETIME_S = 300.0
"""Lifetime of tokens whose endpoint does not say it; RFC 6749 only recommends that it does."""
_BUSY = (408, 425, 429)
"""Statuses besides the 5xx that mean: retry later."""


def request_token(oauth: OAuthConfig) -> Token:
    """Ask the endpoint once. Raises OutageError if it does not answer, BrokerError if it refuses."""
    assert oauth.token_url is not None
    assert oauth.client_id is not None
    assert oauth.client_secret is not None
    tls = make_tls("broker.oauth", cafile=oauth.ssl_cafile, error=BrokerError)
    form = {"grant_type": "client_credentials", "scope": oauth.scope, "audience": oauth.audience}
    login = httpx.BasicAuth(quote_plus(oauth.client_id), quote_plus(oauth.client_secret.get_secret_value()))
    where = f"token endpoint {oauth.token_url}"
    try:
        # Redirects are errors: the next host would get the secret.
        with (
            httpx.Client(verify=tls, timeout=_TIMEOUT_S, follow_redirects=False) as client,
            client.stream(
                "POST",
                oauth.token_url,
                data={name: value for name, value in form.items() if value is not None},
                auth=login,
                headers={"Accept": "application/json"},
            ) as answer,
        ):
            text = _read(answer)
            status = answer.status_code
    except httpx.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise BrokerError(
                f"{where}: its certificate is not signed by a CA we know, or is not for this host "
                f"({first_line(error)}). Set broker.oauth.ssl_cafile to the PEM file of the CA that signed it"
            ) from None
        raise OutageError(f"{where}: {first_line(error)}") from None
    return _token(where, status, text, oauth)


def _read(answer: httpx.Response) -> bytes:
    text = b""
    for part in answer.iter_bytes():
        text += part
        if len(text) > _MAX_ANSWER_BYTES:
            raise BrokerError("the token endpoint's answer is too long to be a token")
    return text


def _token(where: str, status: int, text: bytes, oauth: OAuthConfig) -> Token:
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    found = found if isinstance(found, dict) else {}
    if status >= 500 or status in _BUSY:
        raise OutageError(f"{where}: answers {status}")
    if status != 200:
        reason = " ".join(str(found.get(key, "")) for key in ("error", "error_description")).split()
        raise BrokerError(
            f"{where}: refuses a token ({status}{': ' if reason else ''}{' '.join(reason)[:300]}). Check "
            "broker.oauth.client_id, scope and RFT_BROKER__OAUTH__CLIENT_SECRET"
        )
    value = found.get("access_token")
    if not isinstance(value, str):
        raise BrokerError(f"{where}: the answer holds no access_token. Check broker.oauth.token_url")
    return Token(value, _lifetime(found.get("expires_in")), oauth.client_id, oauth.extensions)


def _lifetime(expires_in: Any) -> float:
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError):
        return _DEFAULT_LIFETIME_S
    return seconds if math.isfinite(seconds) else _DEFAULT_LIFETIME_S
