"""Kafka clients with our settings. Each checks first that the broker answers, so failures carry their real cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.limits import message_limit
from rft.log.probe import probe
from rft.log.security import password, security_options, ssl_context

Client = TypeVar("Client")

_RECONNECT_MS = 1000
"""Longest wait between two tries to reach a broker that went away. kafka-python's 30 s is how long a role would
stand still after a broker's restart of three seconds."""


def make_producer(config: Config, client_id: str, **overrides: Any) -> KafkaProducer:
    """A producer of bytes: idempotent, acknowledged by all replicas, murmur2 by key. BrokerError if unreachable."""
    options = {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 5,
        "batch_size": 256 * 1024,
        "max_request_size": message_limit(config.log),
        "max_block_ms": 30_000,
        "allow_auto_create_topics": False,
    }
    return _connect(KafkaProducer, config, client_id, options | overrides)


def make_consumer(config: Config, client_id: str, group: str | None = None, **overrides: Any) -> KafkaConsumer:
    """A consumer of bytes that starts at the beginning and commits only when told to. BrokerError if unreachable.

    ``group`` is the consumer group; without one, assign partitions yourself.
    """
    options = {
        "group_id": group,
        "enable_auto_commit": False,
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
    """An admin client. BrokerError if unreachable."""
    return _connect(KafkaAdminClient, config, client_id, {})


def fetch_wait_ms(config: Config) -> int:
    """How long a broker may hold a fetch that finds nothing.

    Kafka answers as soon as an event comes. The embedded broker sleeps through the whole time, so there it is the
    latency of every hop: with 100 ms (and Faust's 1,500) explorer and trainer waited for each other most of the time.
    """
    return 20 if config.broker.kind == "embedded" else 100


def bootstrap_servers(config: Config) -> list[str]:
    """``host:port`` of each server to start from. BrokerError if none is configured."""
    servers = [server.strip() for server in (config.broker.bootstrap_servers or "").split(",") if server.strip()]
    if not servers:
        raise BrokerError(
            f"broker.bootstrap_servers is not set. With broker.kind = '{config.broker.kind}' `rft run` starts the "
            "broker and fills it in; to start a role by hand, pass --broker.bootstrap_servers host:port"
        )
    return servers


def faust_broker_options(config: Config) -> dict[str, Any]:
    """Keyword arguments for ``faust.App`` that concern the broker. BrokerError if unreachable."""
    # Faust takes half a second to import, and most roles do without it.
    import faust

    servers = bootstrap_servers(config)
    probe(config.broker, servers)
    options: dict[str, Any] = {
        "broker": ";".join(f"kafka://{server}" for server in servers),
        "broker_session_timeout": config.log.session_timeout_ms / 1000,
        "broker_heartbeat_interval": config.log.session_timeout_ms / 3000,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": 4 * 1024 * 1024,
        "producer_acks": -1,
        "producer_max_request_size": message_limit(config.log),
        "topic_partitions": config.log.partitions,
        "topic_replication_factor": config.log.replication_factor,
        "topic_disable_leader": True,
        "web_enabled": False,
    }
    context = ssl_context(config.broker)
    if config.broker.security_protocol.startswith("SASL"):
        options["broker_credentials"] = faust.SASLCredentials(
            username=config.broker.sasl_username,
            password=password(config.broker),
            mechanism=config.broker.sasl_mechanism,
            ssl_context=context,
        )
    elif context is not None:
        options["broker_credentials"] = faust.SSLCredentials(context=context)
    return options


def _connect(make: Callable[..., Client], config: Config, client_id: str, options: dict[str, Any]) -> Client:
    servers = bootstrap_servers(config)
    probe(config.broker, servers)
    common = {
        "bootstrap_servers": servers,
        "client_id": client_id,
        "bootstrap_timeout_ms": int(config.broker.connect_timeout_s * 1000),
        "reconnect_backoff_max_ms": _RECONNECT_MS,
        "metrics_enabled": False,
        **security_options(config.broker),
    }
    if make is KafkaAdminClient:
        common.pop("metrics_enabled")
    try:
        return make(**common, **options)
    except KafkaError as error:
        raise BrokerError(f"broker {','.join(servers)} answers, but no {make.__name__} could start: {error}") from error
