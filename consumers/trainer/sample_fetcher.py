"""Fetches samples of ``ready`` at exact positions: those of steps to redo, and those that are kept as pointers."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from consumers.trainer.ready_reader import ENTITY, client_id
from rft.config import Config
from rft.errors import BrokerError, RftError
from rft.log.coordinates import LogPosition, ReusePosition
from rft.log.events import Event
from rft.log.exact_reader import ExactReader
from rft.log.retention import retention_error
from rft.log.topics import topic_name
from rft.training.sample import Sample, SampleFilter, read_payload, read_sample
from schemas.events import ScoredExperience

_NEEDED = "the steps after the checkpoint, or groups that wait in memory as pointers, need exactly these"


class SampleFetcher:
    """Reads samples back from the log, with their arrays."""

    def __init__(self, config: Config, sample_filter: SampleFilter) -> None:
        self._config = config
        self._filter = sample_filter
        self._reader = ExactReader(config, f"{client_id(config)}-exact", ENTITY)

    def fetch(self, positions: Collection[LogPosition]) -> list[Sample]:
        """Return the samples at ``positions``, in that order, with their arrays.

        Raises MissingRangeError when the log no longer holds one of them, DecodeError when one is damaged, BrokerError
        when the log ends before one of them.
        """
        found = self._read(positions)
        samples = []
        for position in positions:
            scored = found[position].record(ScoredExperience)
            sample = read_sample(*position, scored, self._filter)
            sample.payload = read_payload(scored, self._filter)
            samples.append(sample)
        return samples

    def fetch_used(self, positions: Collection[ReusePosition]) -> list[Sample]:
        """Return the samples at ``positions`` with their numbers of uses. Raises as :meth:`fetch` does."""
        samples = self.fetch([LogPosition(partition, offset) for partition, offset, _ in positions])
        for sample, (*_, uses) in zip(samples, positions, strict=True):
            sample.uses = uses
        return samples

    def fill(self, samples: Iterable[Sample]) -> None:
        """Fetch the arrays of samples that are pointers. Raises as :meth:`fetch` does."""
        pointers = [sample for sample in samples if sample.payload is None]
        fetched = self.fetch([sample.position for sample in pointers])
        for sample, found in zip(pointers, fetched, strict=True):
            sample.payload = found.payload

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def _read(self, positions: Collection[LogPosition]) -> dict[LogPosition, Event]:
        found = self._reader.read(positions)
        missing = [position for position in positions if position not in found]
        if missing:
            raise self._missing(*min(missing))
        return found

    def _missing(self, partition: int, offset: int) -> RftError:
        end = self._reader.end_offset(partition)
        if offset >= end:
            return BrokerError(
                f"the event at {topic_name(self._config, ENTITY)} {partition}:{offset} is needed, but the log ends "
                f"at {end}: it is another log. Start a new run under another run.name and log.namespace"
            )
        begin = max(self._reader.begin_offset(partition), offset + 1)
        return retention_error(self._config, ENTITY, partition, offset, begin, needed=_NEEDED)
