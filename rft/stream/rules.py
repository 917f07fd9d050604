"""Defines the rules by which a pipeline decides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from rft.config import ProcessorConfig
from rft.log.record_checks import check_partition
from rft.rewards.scorer import Scorer
from rft.stream.actions import Received
from rft.stream.prioritize import Prioritizer
from schemas.codec import decode
from schemas.events import Record
from schemas.framing import SchemaLookup

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Rules:
    """Holds everything that stays the same while a pipeline runs."""

    config: ProcessorConfig
    scorer: Scorer
    prioritizer: Prioritizer
    max_event_bytes: int
    """Larger events are malformed."""
    writer_schemas: SchemaLookup | None = None
    """Finds schemas that events name by a registry's id, among those fetched already: the pipeline does no I/O."""
    partitions: int | None = None
    """Partitions of each topic that is read, to check that an event is in its key's; None: they are not checked."""
    max_age_ms: int | None = None
    """The log keeps no events that are older. A timestamp beyond is a wrong clock's; None: none is."""

    def external_sources(self, split: str) -> frozenset[str]:
        """Return the sources of external rewards for experiences of this split; evaluations have none."""
        return self._sources if split == "train" else frozenset()

    @cached_property
    def _sources(self) -> frozenset[str]:
        return frozenset((*self.config.external.required, *self.config.external.optional))

    def check_partition(self, event: Received) -> None:
        """Check that an event is in the partition of its key. Raises DecodeError."""
        if self.partitions is not None:
            check_partition(event.key, event.partition, self.partitions)

    def decode(self, event: Received, kind: type[R]) -> R:
        """Decode an event. Raises DecodeError if it is malformed."""
        return decode(
            event.value or b"",
            kind,
            max_bytes=self.max_event_bytes,
            writer_schemas=self.writer_schemas,
            headers=event.headers,
        )
