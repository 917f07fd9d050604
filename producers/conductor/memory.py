"""Whether the log still holds what a conductor must know: which tasks are retired, and what evaluations came to."""

from __future__ import annotations

from collections.abc import Collection

from rft.config import Config
from rft.evaluation.ids import parse_group_id
from rft.log.events import EventReader
from rft.log.retention import deleted, first_time_ms
from schemas.events import Record, Task

WITHOUT = "go on without evaluations (eval.tasks = 0)"


class Memory:
    """Compares what was ordered with what the log has deleted. Tasks that were deleted need no care: what is not on
    the log and not retired is issued again, under the same number.
    """

    def __init__(self, config: Config, reader: EventReader) -> None:
        """``reader`` is where the conductor begins to read.

        Raises MissingRangeError when the beginning of ``steps`` was deleted.
        """
        self._config = config
        self._deleted = {
            partition: begin for (entity, partition), begin in reader.positions.items() if entity == "ready" and begin
        }
        self._ordered_at: dict[int, int] = {}
        """When the first evaluation task of a version was issued."""
        for (entity, partition), begin in reader.positions.items():
            if entity == "steps" and begin:
                raise deleted(config, entity, partition, 0, begin, needed="they say which tasks are retired")

    def note(self, seen: Record) -> None:
        """An event was read."""
        if isinstance(seen, Task) and (parsed := parse_group_id(seen.group_id)):
            earlier = self._ordered_at.get(parsed.version, seen.issued_at)
            self._ordered_at[parsed.version] = min(seen.issued_at, earlier)

    def check(self, pending: Collection[int]) -> None:
        """``pending`` are versions whose evaluation lacks results. MissingRangeError if these may have been deleted:
        waiting for them would never end.
        """
        ordered_at = min(
            (self._ordered_at[version] for version in pending if version in self._ordered_at), default=None
        )
        if ordered_at is None:
            return
        for partition, begin in self._deleted.items():
            kept_since = first_time_ms(self._config, "ready", partition, begin)
            if kept_since is None or kept_since > ordered_at:
                needed = "results of an evaluation that is not complete may have been among them"
                raise deleted(self._config, "ready", partition, 0, begin, WITHOUT, needed=needed)
