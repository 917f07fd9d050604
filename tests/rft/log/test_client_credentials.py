"""The shipped token provider asks an OAuth 2 endpoint, and says what is wrong with its answers."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from certificates import make_certificates
from token_server import AUDIENCE, CLIENT, SECRET, TokenServer

from rft.config import BrokerConfig, Config
from rft.config.oauth import OAuthConfig
from rft.config_sources import resolve, unmasked_environment
from rft.config_toml import resolved_toml
from rft.errors import BrokerError, ConfigError, OutageError
from rft.log.client_credentials import request_token


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


def oauth(server: TokenServer, **changes: Any) -> OAuthConfig:
    return BrokerConfig(**server.settings(**changes)).oauth


def test_a_token_comes_with_its_lifetime_and_extensions(tokens: TokenServer) -> None:
    tokens.lifetime_s = 90.0
    token = request_token(oauth(tokens, audience="kafka", extensions={"logicalCluster": "lkc-1"}))
    assert jwt.decode(token.value, tokens.key.public_key(), ["RS256"], audience=AUDIENCE)["sub"] == CLIENT
    assert (token.lifetime_s, token.principal, token.extensions) == (90.0, CLIENT, {"logicalCluster": "lkc-1"})
    assert tokens.forms == [{"grant_type": "client_credentials", "scope": "kafka.all", "audience": "kafka"}]


def test_a_refusal_is_named_without_the_secret(tokens: TokenServer) -> None:
    with pytest.raises(BrokerError, match=r"refuses a token \(401: invalid_client wrong client or secret\)") as caught:
        request_token(oauth(tokens, client_secret="hunter2"))
    assert not isinstance(caught.value, OutageError)
    assert "hunter2" not in f"{caught.value!r}{caught.value.__context__!r}"


def test_an_endpoint_that_is_away_may_come_back(tokens: TokenServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/token"
    with pytest.raises(OutageError, match=f"token endpoint {url}: .*refused"):
        request_token(oauth(tokens, token_url=url))


ANSWERS: dict[str, tuple[int, bytes, type[BrokerError], str]] = {
    "busy": (503, b"", OutageError, "answers 503"),
    "too many requests": (429, b"{}", OutageError, "answers 429"),
    "a redirect": (302, b"", BrokerError, r"refuses a token \(302\)"),
    "a page": (200, b"<html>", BrokerError, "holds no access_token"),
    "no token": (200, b'{"token_type": "Bearer"}', BrokerError, "holds no access_token"),
    "endless": (200, b"x" * 300_000, BrokerError, "too long"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_other_answers_are_named(tokens: TokenServer, kind: str) -> None:
    status, body, error, message = ANSWERS[kind]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", f"{tokens.url}/token")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        with pytest.raises(BrokerError, match=message) as caught:
            request_token(oauth(tokens, token_url=f"http://127.0.0.1:{server.server_address[1]}/"))
        thread.join()
    assert caught.type is error
    assert tokens.forms == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_url": "http://issuer.example/token"}, "http:// would show the client secret.*Use https://"),
        ({"token_url": "issuer.example/token"}, "must begin with https://"),
        ({"token_url": "https://me:pw@issuer.example/"}, "must not hold a user"),
        ({"client_secret": None}, "needs oauth.token_url, oauth.client_id and oauth.client_secret"),
        ({"extensions": {"auth": "x"}}, "letters other than 'auth'"),
        ({"extensions": {"a": "x\x01b"}}, "printable"),
    ],
)
def test_wrong_settings_are_named(tokens: TokenServer, changes: dict[str, Any], message: str) -> None:
    settings = tokens.settings(**changes) | {"security_protocol": "SASL_SSL"}
    with pytest.raises(ConfigError, match=message) as caught:
        resolve([("file", {"broker": settings})])
    assert SECRET not in str(caught.value)


def test_the_secret_reaches_a_role_by_the_environment_only(tokens: TokenServer) -> None:
    config = Config(broker=BrokerConfig(security_protocol="SASL_SSL", **tokens.settings()))
    assert SECRET not in resolved_toml(config)
    assert unmasked_environment(config) == {"RFT_BROKER__OAUTH__CLIENT_SECRET": SECRET}


def test_an_endpoint_is_trusted_by_its_ca_only(tokens: TokenServer, tmp_path: Path) -> None:
    make_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    tokens.socket = tls.wrap_socket(tokens.socket, server_side=True)
    url = tokens.url.replace("http://", "https://") + "/token"
    assert request_token(oauth(tokens, token_url=url, ssl_cafile=tmp_path / "ca.pem")).principal == CLIENT
    for cafile in (None, tmp_path / "other-ca.pem"):
        with pytest.raises(BrokerError, match=r"not signed by a CA we know.*Set broker\.oauth\.ssl_cafile") as caught:
            request_token(oauth(tokens, token_url=url, ssl_cafile=cafile))
        assert not isinstance(caught.value, OutageError)
    with pytest.raises(BrokerError, match=r"broker\.oauth\.ssl_cafile: there is no file"):
        request_token(oauth(tokens, token_url=url, ssl_cafile=tmp_path / "none.pem"))
