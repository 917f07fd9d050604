"""Makes the Faust app: its settings, and the reason for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faust
from faust.auth import OAuthCredentials

from consumers.processors.faust_backend.private import PromptTransport
from consumers.processors.faust_backend.tokens import AsyncTokens
from rft.config import BrokerConfig, Config
from rft.log.client_names import client_name
from rft.log.clients import (
    bootstrap_servers,
    fetch_wait_ms,
    message_limit,
    producer_codec,
    reach_broker,
)
from rft.log.outages import wait_out
from rft.log.security import password, ssl_context
from rft.log.tokens import token_source
from rft.log.topics import consumer_group, topic_name
from rft.stream.actions import Source

BUFFERED_EVENTS = 512
"""Events that Faust reads ahead. It counts events, not bytes, so this bounds memory only together with
``log.max_message_bytes``; more did not make it faster."""

NEVER_S = 1e9
PRODUCE_S = 20.0
"""How long the broker may take to acknowledge before the producer connects again. The events stay in the producer until
they are acknowledged, however long that takes."""
REQUEST_S = 40.0
"""How long the broker may take to answer a consumer: if it stands still, another broker may have taken over."""


def make_app(config: Config, data_path: Path) -> faust.App:
    """Make an app that reads bytes, creates no topics, commits nothing by itself and serves no web pages.

    Args:
        data_path: Folder for Faust's own files.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    app = faust.App(
        consumer_group(config, "processors"),
        autodiscover=False,
        datadir=str(data_path),
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,
        stream_buffer_maxsize=BUFFERED_EVENTS,
        broker_max_poll_records=BUFFERED_EVENTS,
        # With True, a rebalance would wait for unacknowledged events, and so for groups to be complete.
        stream_wait_empty=False,
        # Faust's watchdogs count acknowledgements, and we give Faust none.
        stream_processing_timeout=NEVER_S,
        broker_commit_livelock_soft_timeout=NEVER_S,
        broker_client_id=client_name(config, "processor"),
        producer_max_batch_size=256 * 1024,
        producer_request_timeout=PRODUCE_S,
        **broker_options(config),
    )
    app.transport = PromptTransport(
        app.conf.broker_consumer, app, fetch_wait_ms=fetch_wait_ms(config), rack=config.broker.rack
    )
    return app


def source_topic(app: faust.App, config: Config, entity: Source) -> faust.types.TopicT:
    """Return a topic to read as bytes: an event that cannot be decoded must reach our code, not end the agent.

    ``acks=False`` keeps Faust from committing. If offset 11 is acknowledged to Faust before offset 10, Faust commits 12
    although 10 is not finished. On a partition where nothing is committed yet, it commits any acknowledged offset
    (``Consumer._new_offset``). :mod:`consumers.processors.offset_tracker` counts instead.
    """
    return app.topic(
        topic_name(config, entity),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        partitions=config.log.partitions,
        acks=False,
    )


def broker_options(config: Config) -> dict[str, Any]:
    """Return the arguments of ``faust.App`` that concern the broker. Raises BrokerError if it is unreachable."""
    servers = bootstrap_servers(config)
    wait_out("cannot connect", lambda: reach_broker(config))
    options: dict[str, Any] = {
        "broker": ";".join(f"kafka://{server}" for server in servers),
        "broker_session_timeout": config.log.session_timeout_ms / 1000,
        # Faust refuses one that is shorter than the session's.
        "broker_request_timeout": max(REQUEST_S, 2 * config.log.session_timeout_ms / 1000),
        "broker_heartbeat_interval": config.log.session_timeout_ms / 3000,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": 4 * 1024 * 1024,
        "producer_acks": -1,
        "producer_max_request_size": message_limit(config.log),
        "producer_compression_type": producer_codec(config),
        "topic_partitions": config.log.partitions,
        "topic_replication_factor": config.log.replication_factor,
        "topic_disable_leader": True,
        "web_enabled": False,
    }
    login = _credentials(config.broker)
    if login is not None:
        options["broker_credentials"] = login
    return options


def _credentials(broker: BrokerConfig) -> faust.types.auth.CredentialsT | None:
    """Return TLS and SASL settings as Faust names them; None for a listener that wants neither."""
    context = ssl_context(broker)
    if not broker.security_protocol.startswith("SASL"):
        return faust.SSLCredentials(context=context) if context is not None else None
    if broker.sasl_mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=AsyncTokens(token_source(broker)), ssl_context=context)
    return faust.SASLCredentials(
        username=broker.sasl_username,
        password=password(broker),
        mechanism=broker.sasl_mechanism,
        ssl_context=context,
    )
