"""The Faust app of the processors: settings, and why they are what they are."""

from __future__ import annotations

from pathlib import Path

import faust

from consumers.processors.transport import PromptTransport
from rft.config import Config
from rft.log.clients import faust_broker_options, fetch_wait_ms
from rft.log.topics import topic_name
from rft.stream.actions import Source

BUFFERED_EVENTS = 512
"""Events that Faust reads ahead. It counts events, not bytes, so this bounds memory only together with
``log.max_message_bytes``; more did not make it faster."""

NEVER_S = 1e9


def make_app(config: Config, data_path: Path) -> faust.App:
    """An app that reads bytes, creates no topics, commits nothing by itself and serves no web pages.

    Args:
        data_path: Where Faust may put files of its own.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    app = faust.App(
        f"{config.log.namespace}.processors",
        autodiscover=False,
        datadir=str(data_path),
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,
        stream_buffer_maxsize=BUFFERED_EVENTS,
        broker_max_poll_records=BUFFERED_EVENTS,
        # Waiting for unacknowledged events in a rebalance would mean waiting for groups to be whole.
        stream_wait_empty=False,
        # Faust's watchdogs go by acknowledgements, which we do not give to Faust.
        stream_processing_timeout=NEVER_S,
        broker_commit_livelock_soft_timeout=NEVER_S,
        broker_client_id=f"{config.log.namespace}.processor",
        producer_max_batch_size=256 * 1024,
        # Longer than a broker takes to restart: until then the producer tries again by itself.
        producer_request_timeout=120.0,
        **faust_broker_options(config),
    )
    app.transport = PromptTransport(app.conf.broker_consumer, app, fetch_wait_ms=fetch_wait_ms(config))
    return app


def source_topic(app: faust.App, config: Config, entity: Source) -> faust.types.TopicT:
    """A topic to read, as bytes: an event that cannot be decoded must reach our code, not end the agent.

    ``acks=False`` keeps Faust from committing. Told that offset 11 is done, it commits 12 though 10, the next one to
    commit, is not; and on a partition where nothing is committed yet, any offset (``Consumer._new_offset``). See
    :mod:`consumers.processors.offsets`.
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
