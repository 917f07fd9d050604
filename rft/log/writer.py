"""Publishes events: encoded, keyed as the design says, with CloudEvents headers, and never silently lost."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from types import TracebackType
from typing import Any

from kafka.errors import KafkaError, MessageSizeTooLargeError
from kafka.producer.future import FutureRecordMetadata

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_producer
from rft.log.cloud_events import cloud_event_headers
from rft.log.dead_letters import VALUE_OMITTED, Stage, dead_letter_headers
from rft.log.events import Event
from rft.log.registry import writer_ids
from rft.log.topics import ENTITIES, topic_name
from schemas.codec import encode
from schemas.events import Record
from schemas.framing import Headers

_MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
"""kafka-python has no bound of its own: a writer faster than its broker would fill the memory."""
_ROOM_TIMEOUT_S = 120.0

logger = logging.getLogger(__name__)


class EventWriter:
    """Publishes records. Thread-safe. After ``flush`` everything that was sent is on the log."""

    def __init__(self, config: Config, client_id: str, **producer_options: Any) -> None:
        """Connect.

        Raises BrokerError with the cause if the broker cannot be reached, RegistryError if the configured registry
        cannot be reached or refuses our schemas.
        """
        self._config = config
        self._source = client_id
        self._schema_ids = writer_ids(config)
        self._producer = make_producer(config, client_id, **producer_options)
        self._room = threading.Condition()
        self._in_flight_bytes = 0
        self._failure: BaseException | None = None

    def send(
        self, entity: str, record: Record, *, key: str | None = None, headers: Headers = ()
    ) -> FutureRecordMetadata:
        """Publish ``record`` on ``entity``'s topic, and return a future of its position (``.get(timeout)``).

        ``key`` is the design's unless given; ``headers`` come after the CloudEvents ones. Raises EncodeError for a
        record that is not valid, BrokerError for one larger than ``log.max_message_bytes``.
        """
        spec = ENTITIES[entity]
        if spec.record is None or not isinstance(record, spec.record):
            raise TypeError(f"the topic of {entity} does not take {type(record).__name__}")
        assert spec.key is not None
        value = encode(record, self._schema_ids.get(entity))
        if len(value) > self._config.log.max_message_bytes:
            raise BrokerError(
                f"a {type(record).__name__} of {len(value)} bytes is larger than log.max_message_bytes "
                f"({self._config.log.max_message_bytes})"
            )
        own = cloud_event_headers(record, self._source, int(time.time() * 1000))
        return self.send_bytes(entity, value, key=(key or spec.key(record)).encode(), headers=[*own, *headers])

    def send_bytes(
        self,
        entity: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> FutureRecordMetadata:
        """Publish bytes as they are: dead letters, or events that were encoded elsewhere.

        The key decides the partition unless one is given. What kafka-python cannot write becomes empty: a header
        without a value, and the value of an event that has neither key nor value.
        """
        if value is None and key is None:
            value = b""
        headers = [(name, b"" if header is None else header) for name, header in headers]
        size = len(value or b"") + len(key or b"")
        self._wait_for_room(size)
        try:
            # The producer itself checks the size and refuses. If the broker refused an event as too large, that would
            # end the producer: an idempotent one allows no gap in its sequence.
            future = self._producer.send(
                topic_name(self._config, entity), value=value, key=key, headers=headers, partition=partition
            )
        except KafkaError as error:
            self._settle(size)
            raise BrokerError(f"cannot publish to {topic_name(self._config, entity)}: {error}") from error
        future.add_callback(lambda _: self._settle(size))
        future.add_errback(lambda error: self._settle(size, error))
        return future

    def publish_dead_letter(self, event: Event, stage: Stage, error: Exception) -> FutureRecordMetadata:
        """Publish an event that could not be processed to ``dlq`` as it came, with its cause and origin in headers.

        If the headers make it larger than the broker takes, its value is left out.
        """
        topic = topic_name(self._config, event.entity)
        logger.warning("dead letter: %s %d:%d: %s", topic, event.partition, event.offset, error)
        headers = dead_letter_headers(
            event.headers,
            stage=stage,
            error=error,
            topic=topic,
            partition=event.partition,
            offset=event.offset,
            now_ms=int(time.time() * 1000),
        )
        try:
            return self.send_bytes("dlq", event.value, key=event.key, headers=headers)
        except BrokerError as refusal:
            if not isinstance(refusal.__cause__, MessageSizeTooLargeError):
                raise
        headers.append((VALUE_OMITTED, str(len(event.value or b"")).encode()))
        return self.send_bytes("dlq", None, key=event.key, headers=headers)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Return when everything sent is acknowledged. Raises BrokerError if anything was not, or not in time."""
        try:
            self._producer.flush(timeout_s)
        except KafkaError as error:
            raise BrokerError(f"events were not acknowledged within {timeout_s:g} s: {error}") from error
        self._raise_failure()

    def close(self, timeout_s: float = 10.0) -> None:
        """Send what is buffered, for at most ``timeout_s``, and disconnect. Only ``flush`` raises for lost events."""
        # The error that brought us here is the one to report, not that the broker is away.
        with contextlib.suppress(KafkaError):
            self._producer.close(timeout=timeout_s)

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            try:
                self.flush()
            finally:
                self.close()
        else:
            self.close(timeout_s=1.0)

    def _wait_for_room(self, size: int) -> None:
        with self._room:
            if not self._room.wait_for(lambda: self._fits(size), _ROOM_TIMEOUT_S):
                raise BrokerError(f"the broker has acknowledged nothing for {_ROOM_TIMEOUT_S:g} s")
            self._in_flight_bytes += size

    def _fits(self, size: int) -> bool:
        return self._in_flight_bytes == 0 or self._in_flight_bytes + size <= _MAX_IN_FLIGHT_BYTES

    def _settle(self, size: int, error: BaseException | None = None) -> None:
        with self._room:
            self._in_flight_bytes -= size
            self._failure = self._failure or error
            self._room.notify_all()

    def _raise_failure(self) -> None:
        with self._room:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise BrokerError(f"events were not written: {failure}") from failure
