"""Reads experiences of another run from its archive, or from an ``.avro`` file that `rft replay` wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import fastavro

from rft.config import Config, ImportConfig, default_topic
from rft.data.reading import BadRow
from rft.errors import DataError, DecodeError, RowError
from rft.log.archive.store import ArchiveStore
from rft.log.archive.view import ArchiveView
from schemas.events import Experience, ScoredExperience
from schemas.wire import from_wire

Numbered = Iterator[tuple[int, ScoredExperience | BadRow]]
ENTITY = "ready"


class Recorded:
    """Training experiences of one source, each with the number of its group's samples there."""

    def __init__(self, config: Config, source: ImportConfig) -> None:
        """Reads through the source once, to count its groups. Raises DataError, ArchiveError or MissingRangeError."""
        self._config = config
        self._source = source
        self._sizes: Counter[str] = Counter()
        self.total = 0
        seen: set[str] = set()
        for _, scored in self.numbered():
            self.total += 1
            if isinstance(scored, BadRow) or scored.experience.sample_id in seen:
                continue
            seen.add(scored.experience.sample_id)
            self._sizes[scored.experience.group_id] += 1

    def numbered(self) -> Numbered:
        """Yield the experiences, numbered from 1. Held-out experiences are left out."""
        read = self._file if self._source.path.is_file() else self._archive
        for number, scored in read():
            if isinstance(scored, BadRow) or scored.experience.split == "train":
                yield number, scored

    def experience(self, scored: ScoredExperience, now_ms: int) -> Experience:
        """Return the event for this log: with the import's ids, and with the reward from the other run.

        An experience that was filtered there is scored again here. The versions of its tokens belong to another log, so
        the import's name replaces the model's.
        """
        old = scored.experience
        if not old.experience_id.startswith(f"{old.group_id}/"):
            raise RowError(f"experience_id {old.experience_id!r} does not begin with its group's id {old.group_id!r}")
        group_id = f"{self._source.name}-{old.group_id}"
        has_reward = scored.verdict == "train" or scored.rewards
        return replace(
            old,
            experience_id=f"{group_id}/{old.experience_id.removeprefix(old.group_id + '/')}",
            group_id=group_id,
            number=-1,
            group_size=self._sizes[old.group_id],
            # The rows of one try have this in common.
            created_at=now_ms if old.rows == 1 else old.created_at,
            source=f"import:{self._source.name}",
            model=self._source.name,
            reward=scored.reward if has_reward else old.reward,
        )

    def _file(self) -> Numbered:
        path = self._source.path
        if path.suffix != ".avro":
            raise DataError(f"{path}: experiences are imported from an archive's folder or an .avro file")
        try:
            with path.open("rb") as file:
                for number, wire in enumerate(fastavro.reader(file), 1):
                    yield number, _decoded(partial(from_wire, ScoredExperience, wire))
        except (OSError, ValueError, EOFError, KeyError, IndexError) as error:
            raise DataError(f"{path} cannot be read as rft replay writes it: {error}") from error

    def _archive(self) -> Numbered:
        with ArchiveView(self._config_of_archive(), str(self._source.path)) as view:
            for number, event in enumerate(view.read(ENTITY), 1):
                yield number, _decoded(partial(event.record, ScoredExperience))

    def _config_of_archive(self) -> Config:
        """Return the configuration with the archive's own names of topics."""
        store = ArchiveStore(str(self._source.path))
        names = store.names()
        if not names:
            suffix = default_topic("", ENTITY)
            found = [name.removesuffix(suffix) for name in store.topics() if name.endswith(suffix)]
            names = {ENTITY: default_topic(found[0], ENTITY)} if len(found) == 1 else {}
        log = self._config.log.model_copy(update={"topics": {**self._config.log.topics, **names}})
        return self._config.model_copy(update={"log": log})


def _decoded(read: Callable[[], object]) -> ScoredExperience | BadRow:
    try:
        scored = read()
    except DecodeError as error:
        return BadRow(str(error), "")
    assert isinstance(scored, ScoredExperience)
    return scored
