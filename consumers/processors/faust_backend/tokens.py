"""Gives tokens to aiokafka, which Faust's clients are made of."""

from __future__ import annotations

import asyncio

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from rft.errors import BrokerError
from rft.log.tokens import Token, TokenSource


class AsyncTokens(AbstractTokenProvider):
    """Waits for a token without holding up the event loop."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._latest: Token | None = None

    async def token(self) -> str:
        try:
            self._latest = await asyncio.to_thread(self._source.token)
        except BrokerError as error:
            # To aiokafka, a failed connection: it tries again.
            raise KafkaConnectionError(str(error)) from None
        return self._latest.value

    def extensions(self) -> dict[str, str]:
        """Return the extensions of the token: aiokafka asks right after :meth:`token`."""
        return dict(self._latest.extensions) if self._latest else {}
