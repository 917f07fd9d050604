"""Fences trainers: the newest process of a trainer holds its redo log; an older one finds out and stops."""

from __future__ import annotations

import os
import secrets
import socket
import time

from consumers.trainer.ready_reader import client_id
from rft.config import Config
from rft.errors import DecodeError, FencedError
from rft.log.coordinates import EntityPartition, LogPosition
from rft.log.dead_letters import Stage
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, DeadLetterRejects, read_record
from rft.log.writer import EventWriter
from rft.stream.fence import CLAIM
from schemas.events import TrainingStep

ENTITY = "steps"
CHECK_EVERY_S = 5.0
"""Longest time until a trainer that has nothing to record learns that another has taken its place."""


class Claim:
    """Represents this process's hold on its trainer's redo log."""

    def __init__(self, config: Config, writer: EventWriter) -> None:
        self._config = config
        self._writer = writer
        self._model = config.trainer.model_key
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.incarnation = f"{socket.gethostname()}/{os.getpid()}/{started}/{secrets.token_hex(4)}"
        """Identifies this process in what it writes."""
        self._checked_to = LogPosition(0, -1)
        """Up to here no other process has claimed."""
        self._checked_at = 0.0
        self._dead_letters = DeadLetterRejects(config, client_id(config), writer)
        self._counted = CountedRejects()

    def take(self) -> None:
        """Claim the redo log: what other incarnations write from now on does not count. Raises BrokerError."""
        claim = TrainingStep(
            model=self._model,
            kind=CLAIM,
            step=0,
            version=0,
            next_version=0,
            trained=(),
            dropped=(),
            retired=(),
            digest="",
            metrics={},
            created_at=int(time.time() * 1000),
            incarnation=self.incarnation,
        )
        self._checked_to = self.write(claim)

    def write(self, entry: TrainingStep) -> LogPosition:
        """Publish an entry of the redo log and return its position. Raises BrokerError."""
        future = self._writer.send(ENTITY, entry)
        self._writer.flush()
        written = future.get(timeout=0)
        return LogPosition(written.partition, written.offset)

    def reject(self, event: Event, stage: Stage, error: DecodeError) -> None:
        """Set an event of ``steps`` aside that is no record. Raises BrokerError.

        Of the trainers on one log, one publishes it as a dead letter: the one whose key it has, otherwise the main one.
        """
        follows = self._config.trainer.follows is not None
        others = {key.encode() for key in self._config.trainers}
        ours = event.key == self._model.encode() if follows else event.key not in others
        (self._dead_letters if ours else self._counted).reject(event, stage, error)

    def check_entry(self, position: LogPosition) -> None:
        """Raise FencedError if another process had claimed before this one's entry at ``position`` was written."""
        # At the next offset after what was checked, no one can have written in between.
        if position.offset > self._checked_to.offset + 1:
            self._read_claims(position.partition, position.offset)
        self._checked_to = position

    def check_periodically(self) -> None:
        """Check every ``CHECK_EVERY_S``, for a trainer that waits, whether another has claimed.

        Raises FencedError, BrokerError.
        """
        now = time.monotonic()
        if now - self._checked_at >= CHECK_EVERY_S:
            self._read_claims(self._checked_to.partition, None)
            self._checked_at = time.monotonic()

    def _read_claims(self, partition: int, end: int | None) -> None:
        """Read from what was checked to ``end``, or to the present end of the log."""
        at = EntityPartition(ENTITY, partition)
        start = {at: self._checked_to.offset + 1}
        client = f"{client_id(self._config)}-claim"
        with EventReader(self._config, client, [ENTITY], positions=start) as reader:
            ends = reader.end_offsets() if end is None else {at: end}
            while not reader.caught_up(ends):
                for event in reader.poll(1.0):
                    if end is None or event.offset < end:
                        entry = read_record(event, TrainingStep, self.reject)
                        if entry is not None:
                            self._raise_if_claimed(entry)
            self._checked_to = LogPosition(partition, ends[at] - 1)

    def _raise_if_claimed(self, entry: TrainingStep) -> None:
        if entry.model != self._model or entry.kind != CLAIM or entry.incarnation == self.incarnation:
            return
        host, process, since, _ = f"{entry.incarnation}///".split("/", 3)
        raise FencedError(
            f"another trainer with trainer.model_key = '{self._model}' has taken over this run: process {process} on "
            f"{host}, started {since}. This older one stops; what it has done since does not count. "
            "If both are meant to train, give each its own trainer.model_key"
        )
