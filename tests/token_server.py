"""An OAuth 2 authorization server on loopback: signs JWTs for one client, and publishes its key."""

from __future__ import annotations

import http.server
import json
import threading
import time
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

CLIENT, SECRET, AUDIENCE, ISSUER = "rft-client", "s3cret/+ with blanks", "kafka", "https://issuer.test"
_KEY_ID = "key-1"


class TokenServer(http.server.ThreadingHTTPServer):
    """Serves ``/token`` and ``/jwks``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = new_key()
        self.lifetime_s = 3600.0
        self.down = False
        """Whether requests for a token are answered with 503."""
        self.forms: list[dict[str, str]] = []
        """The form of each request for a token."""
        self.issued: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the right settings of ``broker`` for a login with tokens of this server, with ``changes``."""
        oauth = {"token_url": f"{self.url}/token", "client_id": CLIENT, "client_secret": SECRET, "scope": "kafka.all"}
        return {"sasl_mechanism": "OAUTHBEARER", "token_provider": "client_credentials", "oauth": oauth | changes}

    def sign(self, *, key: RSAPrivateKey | None = None, lifetime_s: float = 3600.0, audience: str = AUDIENCE) -> str:
        now = time.time()
        claims = {"sub": CLIENT, "iss": ISSUER, "aud": audience, "iat": int(now), "exp": int(now + lifetime_s)}
        return jwt.encode(claims, key or self.key, algorithm="RS256", headers={"kid": _KEY_ID})

    def jwks(self) -> dict[str, Any]:
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": _KEY_ID, "alg": "RS256", "use": "sig"}]}


def new_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        self._answer(200, self.server.jwks())

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        form = {name: values[0] for name, values in parse_qs(self.rfile.read(size).decode()).items()}
        login = b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        self.server.forms.append(form)
        if self.server.down:
            self._answer(503, {})
            return
        if [unquote_plus(part) for part in login.split(":")] != [CLIENT, SECRET]:
            self._answer(401, {"error": "invalid_client", "error_description": "wrong client or secret"})
            return
        token = self.server.sign(lifetime_s=self.server.lifetime_s)
        self.server.issued.append(token)
        self._answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.server.lifetime_s})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None: ...
