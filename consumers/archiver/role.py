"""The archiver as a process: from the log to the files, and again when the disk is full."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from consumers.archiver.copier import Copier, Rolling
from rft.config import Config
from rft.errors import ArchiveError, BrokerError, MissingRangeError
from rft.log.archive import ArchiveStore
from rft.log.archive.files import next_offset
from rft.log.events import Event, EventReader, Position
from rft.log.topics import topic_name

logger = logging.getLogger(__name__)

_PAUSE_S = 0.5
"""Between two looks at the log: a wake-up for each of a thousand events a second would cost several times the CPU."""
_BATCH = 2000
_RETRY_S = 5.0
_CATCH_UP_S = 20.0
"""How long a stopped archiver copies on to reach what was the log's end when it was stopped; less than the 30 s that a
role may take to stop."""
_SUMMARY_S = 60.0


def run(config: Config, stop: threading.Event, *, once: bool = False) -> None:
    """Copy the topics of ``archive.entities`` until ``stop`` is set, then on to the log's end as it is at that moment.

    A disk that is full or a store that is away is waited for: the log keeps what is not copied.

    Args:
        once: Copy to the present end, however long it takes, and return.

    Raises:
        ArchiveError: The archive is another log's, or another archiver works in it.
        MissingRangeError: The log deleted events before they were copied.
        BrokerError: The log cannot be read; what was read is in the archive.
    """
    store = ArchiveStore(config.archive_url)
    logger.info("archive: %s", config.archive_url)
    with store.locked():
        while not _copied(config, store, stop, once):
            stop.wait(_RETRY_S)


def _copied(config: Config, store: ArchiveStore, stop: threading.Event, once: bool) -> bool:
    try:
        with EventReader(config, "archiver", config.archive.entities, auto_offset_reset="none") as reader:
            _copy(config, store, reader, stop, once)
        return True
    except BrokerError as error:
        if not isinstance(error.__cause__, MissingRangeError):
            raise
        return False  # retention was faster than we; the next start finds out what is gone
    except ArchiveError as error:
        if not isinstance(error.__cause__, OSError) or stop.is_set() or once:
            raise
        logger.error("%s; trying again every %g s, the log keeps what is not copied", error, _RETRY_S)
        return False


def _copy(config: Config, store: ArchiveStore, reader: EventReader, stop: threading.Event, once: bool) -> None:
    topics: dict[str, str] = {entity: topic_name(config, entity) for entity in config.archive.entities}
    store.add_topics({topics[entity]: sum(name == entity for name, _ in reader.positions) for entity in topics})
    _go_on(config, store, reader, topics)
    settings = config.archive
    rolling = Rolling(int(settings.roll_mb * 1024 * 1024), settings.roll_s, settings.codec)
    copier = Copier(store, topics, reader.positions, rolling)
    try:
        try:
            if not once:
                _follow(reader, copier, stop)
            _catch_up(reader, copier, None if once else time.monotonic() + _CATCH_UP_S)
        except BrokerError:
            copier.finish()
            raise
        copier.finish()
    except ArchiveError:
        copier.abandon()
        raise
    logger.info("archived %d events (%.1f MiB) since the start", copier.events, copier.size_bytes / 2**20)


def _go_on(config: Config, store: ArchiveStore, reader: EventReader, topics: Mapping[str, str]) -> None:
    """Set the reader to where the whole files end."""
    begins, ends = reader.begin_offsets(), reader.end_offsets()
    for entity, topic in topics.items():
        store.remove_unfinished(topic)
        for partition, files in store.files(topic).items():
            where: Position = entity, partition
            at = next_offset(files) or 0
            if where not in ends or at > ends[where]:
                raise ArchiveError(
                    f"archive {store.url} holds {topic}, partition {partition}, up to offset {at}, but the log ends "
                    f"at {ends.get(where, 0)}: it is the archive of another log. Set another archive.url"
                )
            if at < begins[where]:
                _miss(config, entity, partition, at, begins[where])
            reader.seek(entity, partition, max(at, begins[where]))


def _miss(config: Config, entity: str, partition: int, start: int, end: int) -> None:
    advice = (
        "Retention deleted them before they were copied. Set archive.skip_missing = true to go on without them, "
        "or another archive.url to start a new archive"
    )
    error = MissingRangeError("the log", entity, partition, start, end, advice)
    if not config.archive.skip_missing:
        raise error
    logger.warning("%s", error)


def _follow(reader: EventReader, copier: Copier, stop: threading.Event) -> None:
    told = time.monotonic()
    while not stop.wait(_PAUSE_S):
        while events := _poll(reader):
            copier.take(events, time.monotonic())
            copier.roll(time.monotonic())
            if stop.is_set():
                return
        now = time.monotonic()
        copier.roll(now)
        if now - told >= _SUMMARY_S:
            told = now
            logger.info("archived %d events (%.1f MiB)", copier.events, copier.size_bytes / 2**20)


def _catch_up(reader: EventReader, copier: Copier, deadline: float | None) -> None:
    ends = reader.end_offsets()
    while any(reader.reached(*where) < end for where, end in ends.items()):
        copier.take(_poll(reader), time.monotonic())
        copier.roll(time.monotonic())
        if deadline is not None and time.monotonic() > deadline:
            logger.warning("stopped before the log's end: more was written than could be copied in %g s", _CATCH_UP_S)
            return


def _poll(reader: EventReader) -> list[Event]:
    try:
        return reader.poll(0.05, max_events=_BATCH)
    except MissingRangeError as error:
        raise BrokerError("retention was faster than the archiver") from error
