"""How long a client bears a broker that has gone away before its role gives up."""

from __future__ import annotations

import time

from kafka.errors import KafkaError

from rft.errors import BrokerError

OUTAGE_LIMIT_S = 60.0
"""Longer than a broker takes to restart. A role that ends instead costs more: its own start, and a model's loading."""
PAUSE_S = 0.2


class OutageTolerance:
    """Counts from the first failure in a row. kafka-python reconnects by itself, but some calls raise meanwhile."""

    def __init__(self, what: str, limit_s: float = OUTAGE_LIMIT_S) -> None:
        """``what`` begins the error's message: what cannot be done."""
        self._what = what
        self._limit_s = limit_s
        self._since: float | None = None

    def bear(self, error: KafkaError) -> None:
        """Return after a pause if trying again may help. Raises BrokerError if it cannot, or has not for too long."""
        if not error.retriable:
            raise BrokerError(f"{self._what}: {error}") from error
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > self._limit_s:
            raise BrokerError(f"{self._what} for {self._limit_s:g} s: {error}") from error
        time.sleep(PAUSE_S)

    def eased(self) -> None:
        """It worked."""
        self._since = None
