"""Keeps the progress of an import in a file in the run's folder, and finds what the log holds beyond it.

The file is written after its rows are on the log, so the log may be ahead of the file but never behind it. If there is
no file, or it does not fit the rows, the log is read from its beginning.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rft.config import Config, ImportConfig
from rft.log.coordinates import EntityPartition
from rft.log.reader import EventReader
from rft.log.topics import topic_name

FOLDER = "imports"
CLIENT_ID = "importer"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Rows whose events are all on the log."""

    topic: str
    rows: int = 0
    chain: str = ""
    """Digest of their events' ids, in order."""
    ends: tuple[tuple[int, int], ...] = ()
    """(partition, offset): all events of later rows come after."""

    def next_chain(self, ids: Iterable[str]) -> str:
        """Return the chain after one more row with these events."""
        return hashlib.blake2b("\n".join((self.chain, *ids)).encode(), digest_size=16).hexdigest()


def entity_of(source: ImportConfig) -> str:
    """Return the topic that an import writes."""
    return "tasks" if source.kind == "tasks" else "experiences"


def read_progress(config: Config, source: ImportConfig) -> ImportProgress:
    """Return the noted progress, or the beginning if the file is missing, damaged or of another topic."""
    topic = topic_name(config, entity_of(source))
    try:
        noted = json.loads(_path(config, source).read_text("utf-8"))
        ends = tuple((int(partition), int(offset)) for partition, offset in noted.pop("ends"))
        progress = ImportProgress(**noted, ends=ends)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ImportProgress(topic)
    return progress if progress.topic == topic else ImportProgress(topic)


def write_progress(config: Config, source: ImportConfig, progress: ImportProgress) -> None:
    """Note the progress, whole or not at all. Raises OSError."""
    path = _path(config, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(asdict(progress)), "utf-8")
    os.replace(partial, path)


def published_since(config: Config, source: ImportConfig, progress: ImportProgress) -> set[str] | None:
    """Return the ids of this import's events on the log after ``progress``; None if that belongs to another log.

    Only headers and keys are read. Raises BrokerError.
    """
    entity, prefix = entity_of(source), f"{source.name}-".encode()
    found: set[str] = set()
    with EventReader(config, CLIENT_ID, [entity]) as reader:
        begins, ends = reader.begin_offsets(), reader.end_offsets()
        for partition, offset in progress.ends:
            at = EntityPartition(entity, partition)
            if offset > ends.get(at, 0):
                return None
            reader.seek(*at, max(offset, begins[at]))
        while not reader.caught_up(ends):
            for event in reader.poll(1.0):
                if (event.key or b"").startswith(prefix):
                    found.update(
                        (value or b"").decode("utf-8", "replace") for name, value in event.headers if name == "ce_id"
                    )
    return found


def _path(config: Config, source: ImportConfig) -> Path:
    return config.run.path / FOLDER / f"{source.name}.json"
