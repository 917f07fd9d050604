"""Waits until the schema that an event names by a registry's id is known."""

from __future__ import annotations

import asyncio
import logging

from rft.errors import DecodeError, RegistryUnreachableError
from rft.log.registry import Registry
from rft.retry import Backoff, any_of, retry_async
from rft.stream.actions import Received
from schemas.framing import SchemaId, registry_id

RETRY_S = 1.0
FAILURES_PER_LINE = 10
"""Failed tries between two lines in the log."""

logger = logging.getLogger(__name__)


class RegistryWait:
    """Fetches the schemas that the pipeline, which does no I/O, will need.

    A registry that does not answer delays events, but makes none a dead letter: nothing is wrong with the events.
    """

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry
        self.awaited: SchemaId | None = None
        """The schema for which the registry does not answer; None if nothing waits for it."""

    async def wait_for(self, event: Received) -> None:
        """Return when the event can be decoded or is known to be malformed. Raises RegistryError if we are refused."""
        registry, number = self._registry, _schema_id(event)
        if registry is None or number is None or registry.settled(number):
            return

        def log(error: Exception, failures: int) -> None:
            self.awaited = number
            if failures % FAILURES_PER_LINE == 1:
                logger.warning("waiting for schema %s: %s", number, error)

        try:
            await retry_async(
                lambda: asyncio.to_thread(registry.look_up, number),
                retryable=any_of(RegistryUnreachableError),
                backoff=Backoff(RETRY_S),
                on_failure=log,
            )
        finally:
            self.awaited = None


def _schema_id(event: Received) -> SchemaId | None:
    try:
        return registry_id(event.value or b"", event.headers)
    except DecodeError:
        return None  # the pipeline finds the same error
