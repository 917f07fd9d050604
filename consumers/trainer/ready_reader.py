"""Reads ``ready`` forward, from the trainer's own positions."""

from __future__ import annotations

from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.coordinates import EntityPartition
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.retention import SKIP, skip_or_raise
from rft.training.progress import LogProgress

ENTITY = "ready"
EVENTS_PER_POLL = 256


class ReadyReader:
    """Reads the events of ``ready`` in order, and keeps the trainer's progress."""

    def __init__(self, config: Config, progress: LogProgress | None) -> None:
        """Start at the positions of ``progress``; None starts at the beginning of the log.

        Raises BrokerError, and MissingRangeError when the log no longer holds the positions, unless
        ``log.skip_deleted``.
        """
        self._config = config
        positions = {EntityPartition(ENTITY, p): offset for p, offset in progress.positions.items()} if progress else {}
        self._reader = _open_reader(config, positions)
        self._unread_ends = self._reader.end_offsets()
        begins = {partition: offset for (_, partition), offset in self._reader.positions.items()}
        self.progress = progress or LogProgress(begins)
        """Which events are finished; the positions of the next start follow from it."""
        self.progress.add_partitions(begins)

    @property
    def caught_up(self) -> bool:
        """True once all events that were on the log at the start have been read."""
        self._unread_ends = {at: end for at, end in self._unread_ends.items() if self._reader.reached(*at) < end}
        return not self._unread_ends

    def at_end(self) -> bool:
        """Return whether everything that is on the log now has been read. Raises BrokerError."""
        return self._reader.at_end()

    def poll(self, timeout_s: float) -> list[Event]:
        """Return new events, of any kind. Raises BrokerError.

        Raises MissingRangeError when events were deleted before they were read, unless ``log.skip_deleted``.
        """
        try:
            return self._reader.poll(timeout_s, max_events=EVENTS_PER_POLL)
        except MissingRangeError as error:
            skip_or_raise(self._config, error)
            self._reader.seek(ENTITY, error.partition, error.end)
            return []

    def rewind(self) -> None:
        """Read on from the positions of the progress, which a redo has moved."""
        self.progress.rewind()
        for partition, offset in self.progress.positions.items():
            self._reader.seek(ENTITY, partition, offset)

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()


def client_id(config: Config) -> str:
    """Return the name of this trainer in the broker's logs."""
    return f"trainer-{config.trainer.model_key}"


def _open_reader(config: Config, positions: dict[EntityPartition, int]) -> EventReader:
    while True:
        try:
            return EventReader(
                config,
                client_id(config),
                [ENTITY],
                positions=positions,
                needed="this is where training goes on",
                choices=[SKIP],
            )
        except MissingRangeError as error:
            skip_or_raise(config, error)
            positions = positions | {EntityPartition(ENTITY, error.partition): error.end}
