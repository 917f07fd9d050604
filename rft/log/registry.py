"""Asks the schema registry for the ids of our schemas and for the schemas of others' ids.

What was found once is kept for the process's life, since ids never change their meaning. If the registry goes away
during a run, the run needs it only when an event names an id that it has not seen before.
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
from rft.log.tls import make_tls
from rft.log.topics import ENTITIES, topic_name
from rft.retry import Backoff, Deadline, any_of, retry
from schemas.framing import SchemaId, SchemaLookup
from schemas.load import current
from schemas.registry import COMPATIBILITY, RegistryClient

T = TypeVar("T")

_UNKNOWN_FOR_S = 5.0
"""An id counts as unknown for so long before it is asked for again: the nodes of a registry agree after a moment."""
_MAX_UNKNOWN = 4096
"""Malformed events may name any ids; no more of them are remembered."""
_BACKOFF = Backoff(0.2, factor=2.0, longest_s=5.0)

logger = logging.getLogger(__name__)


class Registry:
    """A client of the registry that remembers its answers. Thread-safe."""

    def __init__(self, config: RegistryConfig) -> None:
        assert config.url is not None
        self._client = RegistryClient(
            config.url,
            username=config.username,
            password=config.password.get_secret_value() if config.password else None,
            token=config.token.get_secret_value() if config.token else None,
            timeout_s=config.timeout_s,
            tls=_tls(config),
        )
        self._config = config
        self._schemas: dict[SchemaId, str] = {}
        self._unknown: OrderedDict[SchemaId, float] = OrderedDict()
        self._ids: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def known(self, number: SchemaId) -> str | None:
        """Return the schema with that id if it was looked up before. Does not ask the registry."""
        return self._schemas.get(number)

    def settled(self, number: SchemaId) -> bool:
        """Return whether the id was looked up before, found or not."""
        return number in self._schemas or self._unknown.get(number, 0) > time.monotonic()

    def look_up(self, number: SchemaId) -> str | None:
        """Ask the registry once; return None when it has no such schema. Raises RegistryError."""
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
        """Do :meth:`look_up`, and ask again while the registry does not answer. A lookup for ``decode``."""
        return self._retry(lambda: self.look_up(number))

    def id_of(self, subject: str, record: str) -> int:
        """Return the id by which to write ``record`` (a schema's name) to the topic of ``subject``.

        Registers the schema first if it is not registered and ``registry.auto_register`` allows it.

        Raises RegistryError; IncompatibleSchemaError when the subject's versions do not allow it.
        """
        key = (subject, record)
        if key not in self._ids:
            number = self._retry(lambda: self._find_or_register(subject, current(record).text))
            with self._lock:
                self._schemas[number] = current(record).text
                self._ids[key] = number
        return self._ids[key]

    def _find_or_register(self, subject: str, schema: str) -> int:
        if not self._config.auto_register:
            number = self._client.find(subject, schema)
            if number is None:
                raise RegistryError(
                    f"schema registry {self._client.url}: our schema is not a version of subject {subject}. "
                    "Register it with `rft schemas register CONFIG`, or set registry.auto_register"
                )
            return number
        return self.register(subject, schema)

    def register(self, subject: str, schema: str) -> int:
        """Make ``schema`` a version of ``subject`` under our rule of compatibility, if it is not one yet."""
        # The rule comes first: under a laxer one, the registry might take a schema that breaks readers.
        if self._client.compatibility(subject) != COMPATIBILITY:
            self._client.set_compatibility(subject)
        return self._client.register(subject, schema)

    def _retry(self, ask: Callable[[], T]) -> T:
        return retry(
            ask,
            retryable=any_of(RegistryUnreachableError),
            backoff=_BACKOFF,
            deadline=Deadline(self._config.patience_s),
            on_failure=lambda error, _: logger.warning("%s; trying again", error),
        )


def open_registry(config: Config) -> Registry | None:
    """Return the configured registry, one for the whole process; None if none is configured."""
    return None if config.registry.url is None else _shared(config.registry)


def schema_lookup(config: Config) -> SchemaLookup | None:
    """Return what finds schemas by a registry's id; None if no registry is configured."""
    registry = open_registry(config)
    return None if registry is None else registry.find


def subject_of(config: Config, entity: str) -> str:
    """Return the subject of a topic's values (TopicNameStrategy)."""
    return f"{topic_name(config, entity)}-value"


def writer_ids(config: Config) -> dict[str, int]:
    """Return the id to write each entity's records with; nothing if no registry is configured.

    Asks for all of them, so that a fault shows when a role starts and not when it first writes. Raises RegistryError.
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
    if config.ssl_cafile is None and config.ssl_certfile is None:
        return None
    return make_tls(
        "registry",
        cafile=config.ssl_cafile,
        certfile=config.ssl_certfile,
        keyfile=config.ssl_keyfile,
        password=config.ssl_password,
        error=RegistryError,
    )
