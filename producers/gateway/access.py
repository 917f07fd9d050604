"""Decides which API key may use which session. Pure.

Without a token the key is the session's name, and whoever reaches the port may use any session. With a token each
session has a key of its own, which an agent cannot turn into another session's, and the token itself opens all: by
path, or as a key ``token:session``.
"""

from __future__ import annotations

import hashlib
import hmac
import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,199}")
"""What a session may be called: it stands in paths and headers without quoting."""
MAC_CHARS = 32
"""Hexadecimal digits of the part of a key that proves it: 128 bits."""


class Access:
    """Makes and checks API keys."""

    def __init__(self, token: str | None) -> None:
        """``token`` is the secret of this gateway; None or empty lets everybody in."""
        self._token = token or ""

    def key(self, session: str) -> str:
        """Return the API key that stands for ``session``. Give it to one agent."""
        return f"{session}.{self._mac(session)}" if self._token else session

    def session(self, key: str) -> str | None:
        """Return the session that an API key names, None if it names none or is forged."""
        if not self._token:
            return key if NAME.fullmatch(key) else None
        if _equal(key[: len(self._token) + 1], f"{self._token}:"):
            named = key[len(self._token) + 1 :]
            return named if NAME.fullmatch(named) else None
        session, _, mac = key.rpartition(".")
        return session if NAME.fullmatch(session) and _equal(mac, self._mac(session)) else None

    def allows(self, key: str, session: str) -> bool:
        """Return whether ``key`` may use ``session``: it is the token, or the session's own key."""
        if not self._token:
            return True
        return any(_equal(key, other) for other in (self._token, self.key(session), f"{self._token}:{session}"))

    def is_token(self, key: str) -> bool:
        """Return whether ``key`` is the token itself. Always true if there is no token."""
        return not self._token or _equal(key, self._token)

    def _mac(self, session: str) -> str:
        digest = hmac.new(self._token.encode(), b"rft session\0" + session.encode(), hashlib.sha256)
        return digest.hexdigest()[:MAC_CHARS]


def _equal(given: str, expected: str) -> bool:
    """Compare in a time that does not depend on where the texts differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
