"""Runs the importer as a role: publishes rows as events, in batches, and notes a batch once it is on the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from producers.importer.progress import (
    CLIENT_ID,
    ImportProgress,
    entity_of,
    published_since,
    read_progress,
    write_progress,
)
from producers.importer.rejects import Rejects
from rft.config import Config, ImportConfig
from rft.data.import_rows import open_import
from rft.data.reading import BadRow, Row
from rft.data.recorded import Recorded
from rft.data.rows import RowMaker
from rft.data.tokenizer import open_tokens
from rft.errors import DataError, RowError
from rft.log.cloud_events import event_id
from rft.log.reader import EventReader
from rft.log.writer import EventWriter
from rft.telemetry.activity import role_activity
from schemas.codec import encode
from schemas.events import Experience, Task

BATCH = 1000
"""Rows that are published together."""
LOG_EVERY_S = 10.0
ADDED_BYTES = 4096
"""What a processor's verdict adds to an experience, or a failed rollout to its task, at most."""
TOKEN_BYTES = 16
"""Bytes of one token in an event, at most: its id, log-probability, mask and version."""

Events = Sequence[Experience] | Sequence[Task]
ReportProgress = Callable[[int, int], None]
"""Is called with (rows done, rows in total)."""

log = logging.getLogger("rft")


@dataclass(slots=True)
class Counts:
    """What became of one import's rows."""

    rows: int = 0
    published: int = 0
    """Rows whose events were published now."""
    present: int = 0
    """Rows whose events were on the log already."""
    repeated: int = 0
    """Rows that equal an earlier one."""
    rejected: int = 0

    def __str__(self) -> str:
        parts = [f"{self.rows:,} rows: {self.published:,} published"]
        parts += [f"{self.present:,} on the log already"] if self.present else []
        parts += [f"{self.repeated:,} the same as earlier ones"] if self.repeated else []
        return ", ".join([*parts, f"{self.rejected:,} rejected"])


def run(config: Config, stop: threading.Event) -> None:
    """Publish everything that ``[[imports]]`` names, except ``manual`` entries.

    Raises DataError, PolicyError, BrokerError.
    """
    for source in [source for source in config.imports if not source.manual]:
        if stop.is_set():
            return
        counts = Import(config, source).run(stop, _ProgressLog(source.name))
        log.info("import %s: %s", source.name, counts)
        if counts.rejected:
            log.warning("import %s: rejected rows are in %s", source.name, source.rejected_path)


class Import:
    """One entry of ``[[imports]]``."""

    def __init__(self, config: Config, source: ImportConfig) -> None:
        """Raises DataError when the file cannot be read, PolicyError when its model's tokenizer cannot."""
        self._config = config
        self._source = source
        self.counts = Counts()
        if source.kind == "experiences":
            recorded = Recorded(config, source)
            self.total = recorded.total
            self._numbered: Callable[[], Iterator[tuple[int, object]]] = recorded.numbered
            self._events: Callable[..., Events] = lambda row, now_ms: [recorded.experience(row, now_ms)]
        else:
            rows = open_import(source)
            self.total = rows.total
            self._numbered = rows.numbered
            self._events = RowMaker(config, source, open_tokens(config.policy)).events
        if source.limit is not None:
            self.total = min(self.total, source.limit)

    def run(self, stop: threading.Event, report: ReportProgress = lambda done, total: None) -> Counts:
        """Publish what the log does not hold yet. When ``stop`` is set, end after the current batch.

        Raises DataError, BrokerError.
        """
        config, source = self._config, self._source
        earlier = self._earlier_progress()
        present = published_since(config, source, earlier)
        if present is None:
            earlier = ImportProgress(earlier.topic)
            present = published_since(config, source, earlier) or set()
        seen = set[str]()
        good = [0]
        with (
            EventWriter(config, f"{CLIENT_ID}-{source.name}") as writer,
            EventReader(config, CLIENT_ID, [entity_of(source)], from_end=True) as reader,
            Rejects(source.rejected_path, lambda: not good[0]) as rejects,
        ):
            progress = ImportProgress(earlier.topic)
            unsaved = 0
            activity = role_activity()
            activity.works("imports %s", source.name)
            for number, row in self._rows():
                self.counts.rows += 1
                activity.progressed()
                events = self._make_events(number, row, rejects)
                if events:
                    good[0] += 1
                    ids = [event_id(event) for event in events]
                    if ids[0] in seen:
                        self.counts.repeated += 1
                    elif self.counts.rows <= earlier.rows or present.issuperset(ids):
                        self.counts.present += 1
                    else:
                        self._send(writer, events, present)
                        self.counts.published += 1
                        unsaved += 1
                    seen.add(ids[0])
                    progress = replace(progress, chain=progress.next_chain(ids))
                if unsaved >= BATCH:
                    writer.flush()
                    unsaved = 0
                    self._note(replace(progress, rows=self.counts.rows), reader)
                    if stop.is_set():
                        return self.counts
                report(self.counts.rows, self.total)
            writer.flush()
            self._note(replace(progress, rows=self.counts.rows), reader)
            report(self.total, self.total)
        if self.counts.rows and not good[0]:
            cause = rejects.causes.most_common(1)[0][0]
            raise DataError(f"{source.path}: all {self.counts.rows} rows were rejected, e.g. because one {cause}")
        return self.counts

    def _rows(self) -> Iterator[tuple[int, object]]:
        for done, (number, row) in enumerate(self._numbered()):
            if self._source.limit is not None and done >= self._source.limit:
                return
            yield number, row

    def _make_events(self, number: int, row: object, rejects: Rejects | None) -> Events:
        """Return the row's events; none if it is rejected."""
        try:
            if isinstance(row, BadRow):
                raise RowError(f"is {row.cause}")
            events = self._events(row, int(time.time() * 1000))
            for event in events:
                self._check_size(event)
            return events
        except RowError as error:
            if rejects is not None:
                self.counts.rejected += 1
                content: Row | BadRow = row if isinstance(row, (dict, BadRow)) else BadRow("", "")
                rejects.add(number, content, str(error))
            return []

    def _check_size(self, event: Experience | Task) -> None:
        """Raise RowError if the event, or what becomes of it, does not fit into a message."""
        limit = self._config.log.max_message_bytes
        limit -= min(ADDED_BYTES, limit // 4)
        texts = event.prompt, event.metadata, event.answer or "", getattr(event, "response", "")
        tokens = event.tokens.size if isinstance(event, Experience) else 0
        if 4 * sum(map(len, texts)) + TOKEN_BYTES * tokens + ADDED_BYTES < limit:
            return
        if (size := len(encode(event))) > limit:
            raise RowError(f"makes an event of {size:,} bytes; at most {limit:,} fit (log.max_message_bytes)")

    def _send(self, writer: EventWriter, events: Events, present: set[str]) -> None:
        """Send a row's events. A kill may have left the first of a pair on the log, which is not sent again."""
        for event in events:
            if event_id(event) not in present:
                writer.send(entity_of(self._source), event)

    def _earlier_progress(self) -> ImportProgress:
        """Return the noted progress if the rows are still the same up to there, else the beginning."""
        noted = read_progress(self._config, self._source)
        progress = ImportProgress(noted.topic)
        for done, (number, row) in enumerate(self._rows() if noted.rows else (), 1):
            role_activity().progressed()
            if events := self._make_events(number, row, None):
                progress = replace(progress, chain=progress.next_chain(event_id(event) for event in events))
            if done == noted.rows:
                return noted if progress.chain == noted.chain else ImportProgress(noted.topic)
        return ImportProgress(noted.topic)

    def _note(self, progress: ImportProgress, reader: EventReader) -> None:
        ends = tuple(sorted((partition, offset) for (_, partition), offset in reader.end_offsets().items()))
        try:
            write_progress(self._config, self._source, replace(progress, ends=ends))
        except OSError as error:
            raise DataError(f"the progress of import {self._source.name} cannot be written: {error}") from error


class _ProgressLog:
    """Logs the progress of an import every ``LOG_EVERY_S``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._at >= LOG_EVERY_S:
            self._at = time.monotonic()
            log.info("import %s: %d of %d rows", self._name, done, total)
