"""Publishes events: encoded, keyed as the design says, with CloudEvents headers, and never silently lost."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from kafka.producer.future import FutureRecordMetadata

from rft.config import Config
from rft.errors import BrokerError, EventTooLargeError, OutageError
from rft.log.clients import least_message_limit, make_producer
from rft.log.cloud_events import cloud_event_headers
from rft.log.dead_letters import VALUE_OMITTED, Stage, dead_letter_headers
from rft.log.events import Event
from rft.log.null_values import NULL, mark_nulls
from rft.log.outages import Outage, broker_error, wait_out, waits_for_broker
from rft.log.registry import writer_ids
from rft.log.topics import ENTITIES, topic_limit, topic_name
from schemas.codec import encode
from schemas.events import Record
from schemas.framing import Headers

MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
"""kafka-python has no bound of its own: a writer faster than its broker would fill the memory."""
_ROOM_TIMEOUT_S = 120.0
_FLUSH_TIMEOUT_S = 60.0
_SLICE_S = 3.0
"""A broker that acknowledges nothing for so long is away."""

_BATCH_BYTES = 1024
"""More than Kafka adds to one event: lengths of its parts, and the frame of its batch."""

logger = logging.getLogger(__name__)


class EventWriter:
    """Publishes records. Thread-safe. After ``flush`` everything that was sent is on the log."""

    def __init__(
        self, config: Config, client_id: str, *, max_in_flight_bytes: int = MAX_IN_FLIGHT_BYTES, **producer_options: Any
    ) -> None:
        """Connect. ``max_in_flight_bytes`` limits what waits to be acknowledged.

        Raises BrokerError with the cause if the broker cannot be reached, RegistryError if the configured registry
        cannot be reached or refuses our schemas.
        """
        self._config = config
        self._source = client_id
        self._schema_ids = writer_ids(config)
        self._producer = make_producer(config, client_id, **producer_options)
        self._room = threading.Condition()
        self._in_flight_bytes = 0
        self._max_in_flight_bytes = max_in_flight_bytes
        self._failure: BaseException | None = None
        self._dead_letter_limit: int | None = None
        """Bytes that ``dlq`` takes in one message; None until an event may be too large."""

    @property
    def full(self) -> bool:
        """True while so much waits to be acknowledged that ``send`` would wait. Thread-safe."""
        return self._in_flight_bytes > self._max_in_flight_bytes

    def prepare(self, *entities: str) -> None:
        """Find out where these topics are, so that no later ``send`` has to wait for that. Raises BrokerError."""
        for entity in entities:
            topic = topic_name(self._config, entity)
            try:
                wait_out(f"cannot publish to {topic}", partial(self._producer.partitions_for, topic))
            except KafkaError as error:
                raise BrokerError(f"cannot publish to {topic}: {error}") from error

    def send(
        self, entity: str, record: Record, *, key: str | None = None, headers: Headers = (), wait: bool = True
    ) -> FutureRecordMetadata:
        """Publish ``record`` on ``entity``'s topic, and return a future of its position (``.get(timeout)``).

        ``key`` is the design's unless given; ``headers`` come after the CloudEvents ones. Waits for room while too much
        is not acknowledged, unless ``wait`` is False: an event loop must not wait here. It looks at ``full`` before it
        makes more events. Raises EncodeError for a record that is not valid, EventTooLargeError for one larger than
        ``log.max_message_bytes``, BrokerError.
        """
        spec = ENTITIES[entity]
        if spec.record is None or not isinstance(record, spec.record):
            raise TypeError(f"the topic of {entity} does not take {type(record).__name__}")
        assert spec.key is not None
        value = encode(record, self._schema_ids.get(entity))
        if len(value) > self._config.log.max_message_bytes:
            raise EventTooLargeError(
                f"a {type(record).__name__} of {len(value)} bytes is larger than log.max_message_bytes "
                f"({self._config.log.max_message_bytes})"
            )
        own = cloud_event_headers(record, self._source, int(time.time() * 1000))
        return self.send_bytes(
            entity, value, key=(key or spec.key(record)).encode(), headers=[*own, *headers], wait=wait
        )

    def send_bytes(
        self,
        entity: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
        wait: bool = True,
    ) -> FutureRecordMetadata:
        """Publish bytes as they are: dead letters, or events that were encoded elsewhere.

        The key decides the partition unless one is given. A null stays a null, in headers too.
        """
        size = len(value or b"") + len(key or b"")
        self._take_room(size, wait=wait)
        topic = topic_name(self._config, entity)
        try:
            # The producer itself checks the size and refuses. If the broker refused an event as too large, that would
            # end the producer: an idempotent one allows no gap in its sequence.
            future = wait_out(
                f"cannot publish to {topic}",
                lambda: self._producer.send(
                    topic,
                    value=NULL if value is None else value,
                    key=key,
                    headers=mark_nulls(headers),
                    partition=partition,
                ),
            )
        except BrokerError:
            self._settle(size)
            raise
        except KafkaError as error:
            self._settle(size)
            raise broker_error(f"cannot publish to {topic}", error) from error
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
        if self._fits_as_dead_letter(event.key, event.value, headers):
            try:
                return self.send_bytes("dlq", event.value, key=event.key, headers=headers)
            except BrokerError as refusal:
                if not isinstance(refusal.__cause__, MessageSizeTooLargeError):
                    raise
        headers.append((VALUE_OMITTED, str(len(event.value or b"")).encode()))
        return self.send_bytes("dlq", None, key=event.key, headers=headers)

    def _fits_as_dead_letter(self, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Return whether ``dlq`` takes an event of this size. Its topic may be smaller than those that we create."""
        least = least_message_limit(self._config.log)
        size = len(value or b"") + len(key or b"") + sum(len(name) + len(text or b"") for name, text in headers)
        size += _BATCH_BYTES
        if size <= least:
            return True
        if self._dead_letter_limit is None:
            self._dead_letter_limit = topic_limit(self._config, "dlq") or least
        return size <= self._dead_letter_limit

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when everything sent is acknowledged. Raises BrokerError if anything was not, or not in time.

        Without ``timeout_s``, a role waits for a broker that is away; another process waits for a minute.
        """
        if timeout_s is None and waits_for_broker():
            self._wait_in_slices("events are not acknowledged", self._producer.flush)
        else:
            limit_s = _FLUSH_TIMEOUT_S if timeout_s is None else timeout_s
            try:
                self._producer.flush(limit_s)
            except KafkaError as error:
                raise OutageError(f"events were not acknowledged within {limit_s:g} s: {error}") from error
        self._raise_failure()

    def wait_for(self, future: FutureRecordMetadata) -> None:
        """Return when an event is acknowledged. Raises BrokerError if it is not, as ``flush`` does."""
        if waits_for_broker():
            self._wait_in_slices("an event is not acknowledged", future.get)
            return
        try:
            future.get(_FLUSH_TIMEOUT_S)
        except KafkaError as error:
            raise BrokerError(f"an event was not acknowledged within {_FLUSH_TIMEOUT_S:g} s: {error}") from error

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

    @staticmethod
    def _wait_in_slices(failure: str, wait: Callable[[float], object]) -> None:
        outage = Outage(failure)
        while True:
            try:
                wait(_SLICE_S)
            except KafkaError as error:
                outage.failed(error)
            else:
                outage.succeeded()
                return

    def _take_room(self, size: int, *, wait: bool) -> None:
        outage = Outage("the broker acknowledges nothing", limit_s=_ROOM_TIMEOUT_S)
        while True:
            with self._room:
                if not wait or self._room.wait_for(lambda: self._fits(size), _SLICE_S):
                    self._in_flight_bytes += size
                    outage.succeeded()
                    return
            outage.failed(KafkaTimeoutError(f"{self._in_flight_bytes} bytes wait to be acknowledged"))

    def _fits(self, size: int) -> bool:
        return self._in_flight_bytes == 0 or self._in_flight_bytes + size <= self._max_in_flight_bytes

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
