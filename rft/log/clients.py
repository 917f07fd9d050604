"""Makes Kafka clients with our settings. Each first checks that the broker answers, so errors name the real cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from rft.config import Config, LogConfig
from rft.errors import BrokerError, ConfigError, OutageError
from rft.log.client_names import client_name
from rft.log.codecs import missing_packages
from rft.log.header_names import read_any_header_names
from rft.log.null_values import NullValueSerializer
from rft.log.outages import broker_error, wait_out, waits_for_broker
from rft.log.probe import probe
from rft.log.security import security_options

Client = TypeVar("Client")

ISOLATION_LEVEL = "read_committed"
"""Of every consumer, those of Faust included: what a foreign producer has not committed does not count. The end of a
partition is then its last stable offset. The embedded broker returns aborted events all the same."""

_OVERHEAD_BYTES = 64 * 1024
"""Room for a record's key and headers (a dead letter's among them) and for batch framing."""
_RECONNECT_MS = 1000
"""Longest wait between two tries to reach a broker that went away. With kafka-python's 30 s, a role would stand still
for that long after a broker's restart of three seconds."""
_METADATA_MAX_AGE_MS = 5_000
"""How soon a client asks again which partitions there are. kafka-python may lose a request for a topic's partitions if
it comes while an answer about other topics is on its way. With its 5 minutes, a consumer would then wait that long."""


_FOR_EVER_MS = 2**31 - 1
_reached: set[tuple[str, ...]] = set()
"""Servers that have let this process in: the configuration is right for them."""


def message_limit(log: LogConfig) -> int:
    """Return the bytes that a topic that we create takes in one message.

    The limit is above ``max_message_bytes``, so that an event too large for us is still received, named and kept as a
    dead letter. Its producer, in whatever language, would otherwise get only a refusal that it may overlook. It is no
    more than twice as much, because clusters have limits of their own: 8 MiB, the usual one, is just enough for the
    default.
    """
    return max(2 * log.max_message_bytes, least_message_limit(log))


def least_message_limit(log: LogConfig) -> int:
    """Return the bytes that a topic must take in one message, so that our largest events fit."""
    return log.max_message_bytes + _OVERHEAD_BYTES


def largest_event(limit: int) -> int:
    """Return the ``max_message_bytes`` that fits a topic that takes ``limit`` bytes; negative if none does."""
    return limit - _OVERHEAD_BYTES


def make_producer(config: Config, client_id: str, **overrides: Any) -> KafkaProducer:
    """Return a producer of bytes: idempotent, acknowledged by all replicas, murmur2 by key.

    Raises BrokerError if the broker is unreachable.
    """
    options = {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": producer_codec(config),
        "linger_ms": 5,
        "batch_size": 256 * 1024,
        "max_request_size": message_limit(config.log),
        "max_block_ms": 30_000,
        # A role keeps its events until the broker takes them. With kafka-python's 120 s they would be lost before that.
        "delivery_timeout_ms": _FOR_EVER_MS if waits_for_broker() else 120_000,
        "allow_auto_create_topics": False,
        "value_serializer": NullValueSerializer(),
    }
    return _connect(KafkaProducer, config, client_id, options | overrides)


def make_consumer(config: Config, client_id: str, group: str | None = None, **overrides: Any) -> KafkaConsumer:
    """Return a consumer of bytes that starts at the beginning and commits only when asked to.

    ``group`` is the consumer group; without one, assign partitions yourself. Raises BrokerError if the broker is
    unreachable.
    """
    read_any_header_names()
    options = {
        "group_id": group,
        "enable_auto_commit": False,
        "isolation_level": ISOLATION_LEVEL,
        "client_rack": config.broker.rack or "",
        "auto_offset_reset": "earliest",
        # Higher ones never end on the embedded broker, whose joins take half of it.
        "session_timeout_ms": config.log.session_timeout_ms,
        "heartbeat_interval_ms": config.log.session_timeout_ms // 3,
        "fetch_max_wait_ms": fetch_wait_ms(config),
        "max_partition_fetch_bytes": 4 * 1024 * 1024,
        "allow_auto_create_topics": False,
    }
    return _connect(KafkaConsumer, config, client_id, options | overrides)


def make_admin(config: Config, client_id: str) -> KafkaAdminClient:
    """Return an admin client. Raises BrokerError if the broker is unreachable."""
    return _connect(KafkaAdminClient, config, client_id, {})


def producer_codec(config: Config) -> str | None:
    """Return the codec by which producers compress, as kafka-python and aiokafka name it.

    Raises ConfigError with what to install if one of the two libraries lacks the codec.
    """
    codec = config.log.compression
    if codec == "none":
        return None
    if missing := missing_packages(codec):
        raise ConfigError(
            f"log.compression = '{codec}' needs what is not installed: pip install {' '.join(missing)}, or set "
            "log.compression to 'gzip' or 'none'"
        )
    return codec


def fetch_wait_ms(config: Config) -> int:
    """Return how long a broker may hold a fetch that finds nothing.

    Kafka answers as soon as an event comes. The embedded broker sleeps the whole time, so there it adds to the latency
    of every hop: with 100 ms (and Faust's 1,500) explorer and trainer waited for each other most of the time.
    """
    return 20 if config.broker.kind == "embedded" else 100


def bootstrap_servers(config: Config) -> list[str]:
    """Return ``host:port`` of each server to start from. Raises BrokerError if none is configured."""
    servers = [server.strip() for server in (config.broker.bootstrap_servers or "").split(",") if server.strip()]
    if not servers:
        raise BrokerError(
            f"broker.bootstrap_servers is not set. With broker.kind = '{config.broker.kind}' `rft run` starts the "
            "broker and fills it in; to start a role by hand, pass --broker.bootstrap_servers host:port"
        )
    return servers


def _connect(make: Callable[..., Client], config: Config, client_id: str, options: dict[str, Any]) -> Client:
    servers = bootstrap_servers(config)
    common = {
        "bootstrap_servers": servers,
        "client_id": client_name(config, client_id),
        "bootstrap_timeout_ms": int(config.broker.connect_timeout_s * 1000),
        "reconnect_backoff_max_ms": _RECONNECT_MS,
        "metadata_max_age_ms": _METADATA_MAX_AGE_MS,
        "metrics_enabled": False,
        **security_options(config.broker),
    }
    if make is KafkaAdminClient:
        common.pop("metrics_enabled")

    def connect() -> Client:
        reach_broker(config)
        try:
            return make(**common, **options)
        except KafkaError as error:
            failure = f"broker {','.join(servers)} answers, but no {make.__name__} could start"
            raise broker_error(failure, error) from error

    return wait_out("cannot connect", connect)


def reach_broker(config: Config) -> None:
    """Return if the broker lets us in. Does not wait longer than ``broker.connect_timeout_s``.

    Raises OutageError if it does not answer, BrokerError with the cause if it refuses us.
    """
    servers = bootstrap_servers(config)
    try:
        probe(config.broker, servers)
    except OutageError:
        raise
    except BrokerError as error:
        # A broker that starts or stops may hang up in the middle of a login. It refuses us by an answer.
        if tuple(servers) in _reached and error.__cause__ is not None:
            raise OutageError(str(error)) from error
        raise
    _reached.add(tuple(servers))
