"""How far an import has come: a file in the run's folder, and what the log says beyond it.

The file is written when what it tells of is on the log, so the log may be ahead of it, never behind. Without the file,
or where it does not fit what is imported now, the log is read from its beginning.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rft.config import Config, ImportConfig
from rft.log.events import EventReader
from rft.log.topics import topic_name

FOLDER = "imports"
CLIENT_ID = "importer"


@dataclass(frozen=True, slots=True)
class Position:
    """Rows whose events are all on the log."""

    topic: str
    rows: int = 0
    chain: str = ""
    """Digest of their events' ids, in order."""
    ends: tuple[tuple[int, int], ...] = ()
    """(partition, offset): nothing of later rows stands before."""

    def then(self, ids: Iterable[str]) -> str:
        """The chain after one more row."""
        return hashlib.blake2b("\n".join((self.chain, *ids)).encode(), digest_size=16).hexdigest()


def entity_of(source: ImportConfig) -> str:
    """The topic that an import writes."""
    return "tasks" if source.kind == "tasks" else "experiences"


def read_position(config: Config, source: ImportConfig) -> Position:
    """What was noted, or the beginning; a file of another topic or a damaged one does not count."""
    topic = topic_name(config, entity_of(source))
    try:
        noted = json.loads(_path(config, source).read_text("utf-8"))
        ends = tuple((int(partition), int(offset)) for partition, offset in noted.pop("ends"))
        position = Position(**noted, ends=ends)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Position(topic)
    return position if position.topic == topic else Position(topic)


def write_position(config: Config, source: ImportConfig, position: Position) -> None:
    """Note it, whole or not at all. Raises OSError."""
    path = _path(config, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(asdict(position)), "utf-8")
    os.replace(partial, path)


def published_since(config: Config, source: ImportConfig, position: Position) -> set[str] | None:
    """Ids of this import's events on the log after ``position``. None when the log is another one than the position's.

    Only headers and keys are looked at. Raises BrokerError.
    """
    entity, prefix = entity_of(source), f"{source.name}-".encode()
    found: set[str] = set()
    with EventReader(config, CLIENT_ID, [entity]) as reader:
        begins, ends = reader.begin_offsets(), reader.end_offsets()
        for partition, offset in position.ends:
            if offset > ends.get((entity, partition), 0):
                return None
            reader.seek(entity, partition, max(offset, begins[entity, partition]))
        while not reader.caught_up(ends):
            for event in reader.poll(1.0):
                if (event.key or b"").startswith(prefix):
                    found.update((value or b"").decode() for name, value in event.headers if name == "ce_id")
    return found


def _path(config: Config, source: ImportConfig) -> Path:
    return config.run.path / FOLDER / f"{source.name}.json"
