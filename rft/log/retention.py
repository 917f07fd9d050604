"""The error for what the log no longer holds: which range, since when, and the choices."""

from __future__ import annotations

import logging
import time

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError, MissingRangeError
from rft.log.clients import make_consumer
from rft.log.topics import topic_name

logger = logging.getLogger(__name__)

LOOK_S = 3.0
"""How long to look for the first event that is kept: an error must not wait long for its embellishment."""
SKIP = "go on without them (log.skip_deleted = true)"
ELSEWHERE = "start over under another run.name and log.namespace"
KEEP = "To have them next time, keep them longer ({setting}) or archive them (archive.enabled = true)"
NO_LONGER = "They were deleted, by retention or by hand"
_RETENTION = {"steps": "log.audit_retention_hours", "dlq": "log.audit_retention_hours"}


def deleted(
    config: Config, entity: str, partition: int, start: int, end: int, *choices: str, needed: str
) -> MissingRangeError:
    """Offsets ``start`` to ``end`` (exclusive) of ``entity`` are needed and were deleted; the log begins at ``end``.

    Args:
        choices: What the operator can do, each as ``do this``; starting over is always the last of them.
        needed: What they are needed for, as ``this is where ... goes on``.
    """
    setting = _RETENTION.get(entity, "log.experience_retention_hours")
    advice = f"{NO_LONGER}, and {needed}. Choose: {'; or '.join([*choices, ELSEWHERE])}. {KEEP.format(setting=setting)}"
    since_ms = first_time_ms(config, entity, partition, end)
    return MissingRangeError("the log", entity, partition, start, end, advice, since_ms=since_ms)


def skip_or_raise(config: Config, error: MissingRangeError) -> None:
    """Warn if the operator has chosen to go on without what is deleted, else raise ``error``."""
    if not config.log.skip_deleted:
        raise error
    logger.warning("going on without what is missing, as log.skip_deleted says: %s", error)


def first_time_ms(config: Config, entity: str, partition: int, offset: int) -> int | None:
    """Time stamp of the first event from ``offset`` on; None if there is none, or nobody can say."""
    try:
        found = first_event(config, entity, partition, offset)
    except (BrokerError, KafkaError):
        return None
    return None if found is None else int(found.timestamp)


def first_event(config: Config, entity: str, partition: int, offset: int) -> ConsumerRecord | None:
    """The first event from ``offset`` on; None if none comes within ``LOOK_S``.

    Raises:
        BrokerError: The broker cannot be reached.
        KafkaError: It refuses us; OffsetOutOfRangeError if the log no longer holds ``offset``.
    """
    place = TopicPartition(topic_name(config, entity), partition)
    consumer = make_consumer(config, "first-kept", auto_offset_reset="none")
    try:
        consumer.assign([place])
        consumer.seek(place, offset)
        deadline = time.monotonic() + LOOK_S
        while time.monotonic() < deadline:
            if messages := consumer.poll(timeout_ms=200, max_records=1).get(place):
                return messages[0]
    finally:
        consumer.close()
    return None
