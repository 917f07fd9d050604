"""Explains what the log no longer holds: which range, since when, and what the operator can choose."""

from __future__ import annotations

import logging

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError, MissingRangeError
from rft.log.clients import make_consumer
from rft.log.outages import asking_once
from rft.log.topics import topic_name
from rft.retry import Deadline

logger = logging.getLogger(__name__)

LOOK_S = 3.0
"""How long to look for the first event that is left. Its time only completes an error, so the error does not wait."""
SKIP = "go on without them (log.skip_deleted = true)"
START_OVER = "start over under another run.name and log.namespace"
KEEP_LONGER = "To have them next time, keep them longer ({setting}) or archive them (archive.enabled = true)"
DELETED = "They were deleted, by retention or by hand"
_RETENTION_SETTING = {"steps": "log.audit_retention_hours", "dlq": "log.audit_retention_hours"}


def retention_error(
    config: Config, entity: str, partition: int, start: int, end: int, *choices: str, needed: str
) -> MissingRangeError:
    """Return the error for offsets ``start`` to ``end`` (exclusive) that are needed; the log begins at ``end``.

    Args:
        choices: What the operator can do, each as ``do this``. Starting over is always the last of them.
        needed: What they are needed for, as ``this is where ... goes on``.
    """
    setting = _RETENTION_SETTING.get(entity, "log.experience_retention_hours")
    options = "; or ".join([*choices, START_OVER])
    advice = f"{DELETED}, and {needed}. Choose: {options}. {KEEP_LONGER.format(setting=setting)}"
    since_ms = first_timestamp_ms(config, entity, partition, end)
    return MissingRangeError("the log", entity, partition, start, end, advice, since_ms=since_ms)


def skip_or_raise(config: Config, error: MissingRangeError) -> None:
    """Warn if the operator has chosen to go on without what is deleted, else raise ``error``."""
    if not config.log.skip_deleted:
        raise error
    logger.warning("going on without what is missing, as log.skip_deleted says: %s", error)


def first_timestamp_ms(config: Config, entity: str, partition: int, offset: int) -> int | None:
    """Return the timestamp of the first event from ``offset`` on; None if there is none or the broker does not say."""
    try:
        with asking_once():
            found = first_event(config, entity, partition, offset)
    except (BrokerError, KafkaError):
        return None
    return None if found is None else int(found.timestamp)


def first_event(config: Config, entity: str, partition: int, offset: int) -> ConsumerRecord | None:
    """Return the first event from ``offset`` on; None if none comes within ``LOOK_S``.

    Raises:
        BrokerError: The broker cannot be reached.
        KafkaError: It refuses us; OffsetOutOfRangeError if the log no longer holds ``offset``.
    """
    at = TopicPartition(topic_name(config, entity), partition)
    consumer = make_consumer(config, "first-kept", auto_offset_reset="none")
    try:
        consumer.assign([at])
        consumer.seek(at, offset)
        deadline = Deadline(LOOK_S)
        while not deadline.passed:
            if messages := consumer.poll(timeout_ms=200, max_records=1).get(at):
                return messages[0]
    finally:
        consumer.close()
    return None
