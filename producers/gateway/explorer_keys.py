"""Makes the keys between gateways and explorers, which share one secret. Pure.

Explorers announce themselves on a topic that others may write to, too. So an announcement proves that it is made with
the secret, and a gateway shows an explorer a key that opens no other one.
"""

from __future__ import annotations

import hashlib
import hmac


class ExplorerKeys:
    """Knows the secret of the gateways of one run."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def proof(self, url: str) -> str:
        """Return what an explorer announces beside its URL."""
        return self._mac("announced", url)

    def proves(self, url: str, proof: str) -> bool:
        """Return whether ``proof`` is that of the URL."""
        return hmac.compare_digest(proof.encode("utf-8", "replace"), self.proof(url).encode())

    def key(self, url: str) -> str:
        """Return the key with which a gateway asks the explorer at ``url``."""
        return self._mac("asked", url)

    def opens(self, url: str, key: str) -> bool:
        """Return whether ``key`` is that of the explorer at ``url``."""
        return hmac.compare_digest(key.encode("utf-8", "replace"), self.key(url).encode())

    def _mac(self, purpose: str, url: str) -> str:
        return hmac.new(self._secret, f"rft explorer\0{purpose}\0{url}".encode(), hashlib.sha256).hexdigest()
