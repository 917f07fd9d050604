"""One trainer per identity: the newest holds the redo log, an older one finds out at its next entry and stops."""

from __future__ import annotations

import os
import secrets
import socket
import time

from consumers.trainer.intake import client_id
from rft.config import Config
from rft.errors import FencedError
from rft.log.events import EventReader, EventWriter
from rft.stream.fence import CLAIM
from schemas.events import TrainingStep

ENTITY = "steps"
CHECK_EVERY_S = 5.0
"""How soon a trainer that has nothing to record learns that another has taken its place."""


class Claim:
    """This process's hold on its trainer's redo log."""

    def __init__(self, config: Config, writer: EventWriter) -> None:
        self._config = config
        self._writer = writer
        self._model = config.trainer.model_key
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.incarnation = f"{socket.gethostname()}/{os.getpid()}/{started}/{secrets.token_hex(4)}"
        self._seen = (0, -1)
        """(partition, offset) up to which no other has claimed."""
        self._checked_at = 0.0

    def take(self) -> None:
        """From now on what other incarnations write does not count. Raises BrokerError."""
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
        self._seen = self.write(claim)

    def write(self, entry: TrainingStep) -> tuple[int, int]:
        """Publish an entry of the redo log; its (partition, offset). Raises BrokerError."""
        future = self._writer.send(ENTITY, entry)
        self._writer.flush()
        written = future.get(timeout=0)
        return written.partition, written.offset

    def check(self, place: tuple[int, int]) -> None:
        """The own entry at ``place`` counts. Raises FencedError when another had claimed before it was written."""
        partition, offset = place
        # The next offset after what was seen: nobody can have written between.
        if offset > self._seen[1] + 1:
            self._look(partition, offset)
        self._seen = place

    def check_now_and_then(self) -> None:
        """For a trainer that waits: ask every so often whether another has claimed. Raises FencedError, BrokerError."""
        now = time.monotonic()
        if now - self._checked_at >= CHECK_EVERY_S:
            self._look(self._seen[0], None)
            self._checked_at = time.monotonic()

    def _look(self, partition: int, end: int | None) -> None:
        """Read from what was seen to ``end``, or to the present end."""
        start = {(ENTITY, partition): self._seen[1] + 1}
        client = f"{client_id(self._config)}-claim"
        with EventReader(self._config, client, [ENTITY], positions=start) as reader:
            ends = reader.end_offsets() if end is None else {(ENTITY, partition): end}
            while not reader.caught_up(ends):
                for event in reader.poll(1.0):
                    if end is None or event.offset < end:
                        self._judge(event.record(TrainingStep))
            self._seen = (partition, ends[ENTITY, partition] - 1)

    def _judge(self, entry: TrainingStep) -> None:
        if entry.model != self._model or entry.kind != CLAIM or entry.incarnation == self.incarnation:
            return
        host, process, since, _ = f"{entry.incarnation}///".split("/", 3)
        raise FencedError(
            f"another trainer with trainer.model_key = '{self._model}' has taken over this run: process {process} on "
            f"{host}, started {since}. This older one stops; nothing that it did since counts. If both are meant to "
            "train, give each its own trainer.model_key"
        )
