"""The schema registry as the log's readers and writers see it: ids of our schemas, and schemas of others' ids.

What was found once is kept for the process's life: ids never change their meaning. So a registry that goes away
while a run goes on is missed only when an event with an id never seen before comes.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from rft.config import Config, RegistryConfig
from rft.errors import RegistryError, RegistryUnreachableError
from rft.log.topics import ENTITIES, topic_name
from schemas.framing import SchemaId
from schemas.load import current
from schemas.registry import COMPATIBILITY, RegistryClient

T = TypeVar("T")

_UNKNOWN_FOR_S = 5.0
"""How long an id counts as unknown before it is asked for again: registries of several nodes agree after a moment."""
_MAX_UNKNOWN = 4096
"""Malformed events name any ids; no more of them are remembered."""

logger = logging.getLogger(__name__)


class Registry:
    """A registry with memory. Thread-safe."""

    def __init__(self, config: RegistryConfig) -> None:
        assert config.url is not None
        self._client = RegistryClient(
            config.url,
            username=config.username,
            password=config.password.get_secret_value() if config.password else None,
            timeout_s=config.timeout_s,
            tls=_tls(config),
        )
        self._config = config
        self._schemas: dict[SchemaId, str] = {}
        self._unknown: OrderedDict[SchemaId, float] = OrderedDict()
        self._ids: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def known(self, number: SchemaId) -> str | None:
        """The schema with that id, if it was looked up before. Asks nobody."""
        return self._schemas.get(number)

    def settled(self, number: SchemaId) -> bool:
        """Whether the id was looked up before, found or not."""
        return number in self._schemas or self._unknown.get(number, 0) > time.monotonic()

    def look_up(self, number: SchemaId) -> str | None:
        """Ask the registry, once; None when it has no such schema. Raises RegistryError."""
        if self.settled(number):
            return self._schemas.get(number)
        text = self._client.schema(number)
        with self._lock:
            if text is not None:
                self._schemas[number] = text
            else:
                self._unknown[number] = time.monotonic() + _UNKNOWN_FOR_S
                while len(self._unknown) > _MAX_UNKNOWN:
                    self._unknown.popitem(last=False)
        return text

    def find(self, number: SchemaId) -> str | None:
        """Like :meth:`look_up`, but patient with a registry that does not answer. A lookup for ``decode``."""
        return self._patiently(lambda: self.look_up(number))

    def id_of(self, subject: str, record: str) -> int:
        """The id by which to write ``record`` (its schema's name) to the topic of ``subject``; registers it first
        if it is not and that is allowed.

        Raises RegistryError; IncompatibleSchemaError when the subject's versions do not allow it.
        """
        key = (subject, record)
        if key not in self._ids:
            number = self._patiently(lambda: self._announce(subject, current(record).text))
            with self._lock:
                self._schemas[number] = current(record).text
                self._ids[key] = number
        return self._ids[key]

    def _announce(self, subject: str, schema: str) -> int:
        if not self._config.auto_register:
            number = self._client.find(subject, schema)
            if number is None:
                raise RegistryError(
                    f"schema registry {self._client.url}: our schema is no version of subject {subject}. Register it "
                    "with `rft schemas register CONFIG`, or set registry.auto_register"
                )
            return number
        return self.register(subject, schema)

    def register(self, subject: str, schema: str) -> int:
        """Make ``schema`` a version of ``subject``, under our rule of compatibility, if it is none yet."""
        # First, so that a level that allows less does not let our schema in.
        if self._client.compatibility(subject) != COMPATIBILITY:
            self._client.set_compatibility(subject)
        return self._client.register(subject, schema)

    def _patiently(self, ask: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._config.patience_s
        pause = 0.2
        while True:
            try:
                return ask()
            except RegistryUnreachableError as error:
                if time.monotonic() + pause > deadline:
                    raise
                logger.warning("%s; trying again", error)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def open_registry(config: Config) -> Registry | None:
    """The registry of the configuration, one for the whole process; None if none is configured."""
    return None if config.registry.url is None else _shared(config.registry)


def subject_of(config: Config, entity: str) -> str:
    """The subject of a topic's values (TopicNameStrategy)."""
    return f"{topic_name(config, entity)}-value"


def writer_ids(config: Config) -> dict[str, int]:
    """The id to write each entity's records with; empty if no registry is configured.

    Asks for all of them, so that what is wrong shows when a role starts and not when it first writes. Raises
    RegistryError.
    """
    registry = open_registry(config)
    if registry is None:
        return {}
    return {
        entity: registry.id_of(subject_of(config, entity), spec.record.__name__)
        for entity, spec in ENTITIES.items()
        if spec.record is not None
    }


@cache
def _shared(config: RegistryConfig) -> Registry:
    return Registry(config)


def _tls(config: RegistryConfig) -> ssl.SSLContext | None:
    if config.ssl_cafile is None:
        return None
    try:
        return ssl.create_default_context(cafile=config.ssl_cafile)
    except (OSError, ssl.SSLError) as error:
        raise RegistryError(f"registry.ssl_cafile: {config.ssl_cafile}: {error}") from error
