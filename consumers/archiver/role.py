"""Runs the archiver: copies the log into archive files, and waits while the disk is full."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from consumers.archiver.copier import Copier, RollingPolicy
from rft.config import Config
from rft.errors import ArchiveError, BrokerError, MissingRangeError
from rft.log.archive import ArchiveStore
from rft.log.archive.files import next_offset
from rft.log.coordinates import EntityPartition
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.topics import topic_name
from rft.retry import Backoff, Deadline, retry
from rft.telemetry.activity import role_activity
from rft.telemetry.input_wait import InputWait

logger = logging.getLogger(__name__)

_PAUSE_S = 0.5
"""Between two looks at the log: a wake-up for each of a thousand events a second would cost several times the CPU."""
_BATCH = 2000
_RETRY_S = 5.0
_CATCH_UP_S = 20.0
"""How long a stopped archiver goes on copying to reach the log's end at the moment of the stop. Less than the 30 s that
a role may take to stop."""
_SUMMARY_S = 60.0


class _OvertakenError(BrokerError):
    """Retention deleted events while the archiver was reading. The next start finds out which are missing."""


def run(config: Config, stop: threading.Event, *, once: bool = False) -> None:
    """Copy the topics of ``archive.entities`` until ``stop`` is set, then on to the log's end at that moment.

    If a disk is full or a store is away, the archiver waits: the log keeps what is not copied.

    Args:
        once: Copy to the present end, however long it takes, and return.

    Raises:
        ArchiveError: The archive is another log's, or another archiver works in it.
        MissingRangeError: The log deleted events before they were copied.
        BrokerError: The log cannot be read; what was read is in the archive.
    """
    store = ArchiveStore(config.archive_url)
    logger.info("archive: %s", config.archive_url)

    def may_pass(error: Exception) -> bool:
        if isinstance(error, _OvertakenError):
            return True
        return isinstance(error, ArchiveError) and isinstance(error.__cause__, OSError) and not (stop.is_set() or once)

    def announce_retry(error: Exception, _: int) -> None:
        if isinstance(error, ArchiveError):
            role_activity().waits("the archive: %s", str(error))
            logger.error("%s; trying again every %g s, the log keeps what is not copied", error, _RETRY_S)

    with store.locked():
        retry(
            lambda: _start(config, store, stop, once),
            retryable=may_pass,
            backoff=Backoff(_RETRY_S),
            pause=stop.wait,
            on_failure=announce_retry,
        )


def _start(config: Config, store: ArchiveStore, stop: threading.Event, once: bool) -> None:
    with EventReader(config, "archiver", config.archive.entities) as reader:
        _copy(config, store, reader, stop, once)


def _copy(config: Config, store: ArchiveStore, reader: EventReader, stop: threading.Event, once: bool) -> None:
    topics: dict[str, str] = {entity: topic_name(config, entity) for entity in config.archive.entities}
    store.add_topics({topics[entity]: sum(at.entity == entity for at in reader.positions) for entity in topics}, topics)
    _resume(config, store, reader, topics)
    settings = config.archive
    rolling = RollingPolicy(int(settings.roll_mb * 1024 * 1024), settings.roll_s, settings.codec)
    copier = Copier(store, topics, reader.positions, rolling)
    try:
        try:
            if not once:
                _follow(reader, copier, stop)
            _catch_up(reader, copier, None if once else Deadline(_CATCH_UP_S))
        except BrokerError:
            copier.finish()
            raise
        copier.finish()
    except ArchiveError:
        copier.abandon()
        raise
    logger.info("archived %d events (%.1f MiB) since the start", copier.events, copier.size_bytes / 2**20)


def _resume(config: Config, store: ArchiveStore, reader: EventReader, topics: Mapping[str, str]) -> None:
    """Set the reader to where the finished files end."""
    begins, ends = reader.begin_offsets(), reader.end_offsets()
    for entity, topic in topics.items():
        store.remove_unfinished(topic)
        for partition, files in store.files(topic).items():
            at = EntityPartition(entity, partition)
            archived = next_offset(files) or 0
            if at not in ends or archived > ends[at]:
                raise ArchiveError(
                    f"archive {store.url} holds {topic}, partition {partition}, up to offset {archived}, but the log "
                    f"ends at {ends.get(at, 0)}: it is the archive of another log. Set another archive.url"
                )
            if archived < begins[at]:
                _skip_or_raise(config, at, archived, begins[at])
            reader.seek(*at, max(archived, begins[at]))


def _skip_or_raise(config: Config, at: EntityPartition, start: int, end: int) -> None:
    advice = (
        "Retention deleted them before they were copied. Set archive.skip_missing = true to go on without them, "
        "or another archive.url to start a new archive"
    )
    error = MissingRangeError("the log", *at, start, end, advice)
    if not config.archive.skip_missing:
        raise error
    logger.warning("%s", error)


def _follow(reader: EventReader, copier: Copier, stop: threading.Event) -> None:
    summarized_at = time.monotonic()
    waits = InputWait(role_activity(), reader.at_end)
    while not stop.wait(_PAUSE_S):
        waits.nothing_came("events to archive")
        while events := _poll(reader):
            waits.came()
            copier.take(events, time.monotonic())
            copier.roll(time.monotonic())
            if stop.is_set():
                return
        now = time.monotonic()
        copier.roll(now)
        if now - summarized_at >= _SUMMARY_S:
            summarized_at = now
            logger.info("archived %d events (%.1f MiB)", copier.events, copier.size_bytes / 2**20)


def _catch_up(reader: EventReader, copier: Copier, deadline: Deadline | None) -> None:
    ends = reader.end_offsets()
    while any(reader.reached(*at) < end for at, end in ends.items()):
        copier.take(_poll(reader), time.monotonic())
        copier.roll(time.monotonic())
        if deadline is not None and deadline.passed:
            logger.warning("stopped before the log's end: more was written than could be copied in %g s", _CATCH_UP_S)
            return


def _poll(reader: EventReader) -> list[Event]:
    try:
        return reader.poll(0.05, max_events=_BATCH)
    except MissingRangeError as error:
        raise _OvertakenError("retention was faster than the archiver") from error
