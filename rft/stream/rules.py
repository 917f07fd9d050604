"""Defines the rules by which a pipeline decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from rft.config import ProcessorConfig
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

    def decode(self, event: Received, kind: type[R]) -> R:
        """Decode an event. Raises DecodeError if it is malformed."""
        return decode(
            event.value or b"",
            kind,
            max_bytes=self.max_event_bytes,
            writer_schemas=self.writer_schemas,
            headers=event.headers,
        )
