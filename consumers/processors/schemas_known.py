"""Waits until the schema that an event names by a registry's id is known."""

from __future__ import annotations

import asyncio
import logging

import faust

from rft.errors import DecodeError, RegistryUnreachableError
from rft.log.registry import Registry
from schemas.framing import SchemaId, registry_id

RETRY_S = 1.0
TELL_EVERY = 10
"""Tries between two lines in the log."""

logger = logging.getLogger(__name__)


class KnownSchemas:
    """Looks up what the pipeline, which asks nobody, will need.

    A registry that does not answer delays events and makes none a dead letter: the event is as good as it was.
    """

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry

    async def wait_for(self, message: faust.types.tuples.Message) -> None:
        """Return when the event can be decoded or is known to be malformed. RegistryError if we are refused."""
        registry, number = self._registry, _needed(message)
        if registry is None or number is None or registry.settled(number):
            return
        tries = 0
        while True:
            try:
                await asyncio.to_thread(registry.look_up, number)
                return
            except RegistryUnreachableError as error:
                if tries % TELL_EVERY == 0:
                    logger.warning("waiting for schema %s: %s", number, error)
                tries += 1
                await asyncio.sleep(RETRY_S)


def _needed(message: faust.types.tuples.Message) -> SchemaId | None:
    try:
        return registry_id(message.value or b"", message.headers or ())
    except DecodeError:
        return None  # the pipeline finds out, too
