"""Reads events as the records of their topics, and sets aside those that are none.

Anyone who may write to a topic can put anything there: other bytes, another topic's record, a tombstone, or an event
under another key. No role may end because of that, and no event may vanish silently. So each role
reads by :func:`read_record` and hands what is no record to one of these:

- :class:`DeadLetterRejects` publishes it as a dead letter. For each topic one role does: the processors for
  `experiences`, `rewards` and `waiting`, the explorers for `tasks`, the trainer for `ready`, `steps` and `members`, the
  conductor for `weights`, the gateways for `sessions`.
- :class:`CountedRejects` counts it and names the first ones in the log, for all other readers.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError, DecodeError, MissingRangeError
from rft.log.coordinates import LogPosition
from rft.log.dead_letter_index import read_dead_letter, resolution
from rft.log.dead_letters import Stage
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.record_checks import check_key
from rft.log.topics import ENTITIES, topic_name
from rft.log.writer import EventWriter
from schemas.events import Record

R = TypeVar("R", bound=Record)

LOGGED = 5
"""Rejected events of each topic that are named in the log one by one; afterwards every hundredth."""
LOOK_S = 10.0
"""How long to look for an earlier dead letter. A second dead letter of one event only costs a line in a list."""

logger = logging.getLogger(__name__)


Reject = Callable[[Event, Stage, DecodeError], object]
"""Takes an event that is no record of its topic; the stage and the error say why."""


def read_record(
    event: Event,
    kind: type[R],
    reject: Reject,
    *,
    check: Callable[[R], None] | None = None,
    keyed: bool = True,
) -> R | None:
    """Return the event's record. Return None if it is none, after handing the event to ``reject``.

    A tombstone on a compacted topic deletes its key, as Kafka means it: it gives None and is not rejected.

    Args:
        check: Checks what the schema cannot express. Raises DecodeError.
        keyed: Whether to check that the event's key is its record's.
    """
    spec = ENTITIES[event.entity]
    if event.value is None and spec.cleanup.startswith("compact"):
        return None
    try:
        record = event.record(kind)
    except DecodeError as error:
        reject(event, "decode", error)
        return None
    try:
        if keyed and spec.key is not None:
            check_key(event.key, spec.key(record))
        if check is not None:
            check(record)
    except DecodeError as error:
        reject(event, "validate", error)
        return None
    return record


def read_records(events: Iterable[Event], kind: type[R], reject: Reject, *, keyed: bool = True) -> Iterator[R]:
    """Yield the records among ``events``; see :func:`read_record`."""
    return (record for event in events if (record := read_record(event, kind, reject, keyed=keyed)) is not None)


class CountedRejects:
    """Counts rejected events by topic, and names the first ones in the log."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By entity."""

    def reject(self, event: Event, stage: Stage, error: DecodeError) -> None:
        """Count one event."""
        self.counts[event.entity] += 1
        count = self.counts[event.entity]
        if count <= LOGGED or count % 100 == 0:
            logger.warning(
                "%s %d:%d is no record of its topic and is left out (%d so far): %s",
                event.entity,
                event.partition,
                event.offset,
                count,
                error,
            )


class DeadLetterRejects:
    """Publishes each rejected event as one dead letter, also if it is read again after a restart."""

    def __init__(self, config: Config, client_id: str, writer: EventWriter) -> None:
        self._config = config
        self._client_id = f"{client_id}-rejects"
        self._writer = writer
        self._published: dict[str, set[LogPosition]] = {}
        """Positions of the events that have a dead letter, by entity. Read when an entity's first event is rejected."""

    def reject(self, event: Event, stage: Stage, error: Exception) -> None:
        """Publish an event, unless it has a dead letter already. Raises BrokerError."""
        if event.entity not in self._published:
            self._published[event.entity] = self._read_published(event)
        published = self._published[event.entity]
        if event.position not in published:
            published.add(event.position)
            self._writer.publish_dead_letter(event, stage, error)

    def _read_published(self, event: Event) -> set[LogPosition]:
        """Return the positions of the topic's events that have a dead letter, as far as that is quickly known."""
        topic, found = topic_name(self._config, event.entity), set[LogPosition]()
        deadline = time.monotonic() + LOOK_S
        try:
            with EventReader(self._config, self._client_id, ["dlq"]) as reader:
                ends = reader.end_offsets()
                while not reader.caught_up(ends) and time.monotonic() < deadline:
                    for letter in map(read_dead_letter, _letters(reader.poll(0.5, max_events=2000))):
                        if letter.topic == topic:
                            found.add(LogPosition(letter.partition, letter.offset))
        except (BrokerError, MissingRangeError, KafkaError) as error:
            logger.warning("earlier dead letters cannot be read, so some may be published twice: %s", error)
        return found


def publish_rejects(config: Config, client_id: str, rejected: Iterable[tuple[Event, Stage, DecodeError]]) -> None:
    """Publish rejected events as dead letters over a connection of its own, each once. Raises BrokerError."""
    with EventWriter(config, client_id) as writer:
        rejects = DeadLetterRejects(config, client_id, writer)
        for event, stage, error in rejected:
            rejects.reject(event, stage, error)


def _letters(events: Iterable[Event]) -> Iterator[Event]:
    return (event for event in events if resolution(event.headers) is None)
