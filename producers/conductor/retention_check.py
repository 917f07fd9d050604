"""Checks that the log still holds what a conductor must know: which tasks are retired, and results of evaluations."""

from __future__ import annotations

from collections.abc import Collection

from rft.config import Config
from rft.evaluation.ids import parse_group_id
from rft.log.reader import EventReader
from rft.log.retention import first_timestamp_ms, retention_error
from schemas.events import Record, Task

ADVICE = "go on without evaluations (eval.tasks = 0)"


class RetentionCheck:
    """Compares what was issued with what the log has deleted.

    Deleted tasks need no care: what is not on the log and not retired is issued again, under the same number.
    """

    def __init__(self, config: Config, reader: EventReader) -> None:
        """``reader`` is at the offsets where the conductor begins to read.

        Raises MissingRangeError when the beginning of ``steps`` was deleted.
        """
        self._config = config
        self._deleted = {
            partition: begin for (entity, partition), begin in reader.positions.items() if entity == "ready" and begin
        }
        """First offset that is still there, by partition of ``ready``."""
        self._issued_at: dict[int, int] = {}
        """Time of the first evaluation task of each version."""
        for (entity, partition), begin in reader.positions.items():
            if entity == "steps" and begin:
                raise retention_error(config, entity, partition, 0, begin, needed="they say which tasks are retired")

    def observe(self, record: Record) -> None:
        """Take in a record that was read."""
        if isinstance(record, Task) and (group := parse_group_id(record.group_id)):
            earlier = self._issued_at.get(group.version, record.issued_at)
            self._issued_at[group.version] = min(record.issued_at, earlier)

    def check(self, pending: Collection[int]) -> None:
        """Raise MissingRangeError if results of a ``pending`` version may have been deleted.

        ``pending`` are the versions whose evaluation lacks results. Waiting for deleted ones would never end.
        """
        issued_at = min((self._issued_at[version] for version in pending if version in self._issued_at), default=None)
        if issued_at is None:
            return
        for partition, begin in self._deleted.items():
            retained_since = first_timestamp_ms(self._config, "ready", partition, begin)
            if retained_since is None or retained_since > issued_at:
                needed = "results of an evaluation that is not complete may have been among them"
                raise retention_error(self._config, "ready", partition, 0, begin, ADVICE, needed=needed)
