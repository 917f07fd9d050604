"""Reads a run's log past the proxy: which writer wrote what last, and which events are dead letters."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from chaos.background import BackgroundThread
from rft.config import Config
from rft.errors import DecodeError, RftError
from rft.log.events import Event
from rft.log.reader import EventReader
from schemas.events import TrainingStep

COMMITTED = {"isolation_level": "read_committed"}
"""Options of readers that return no event of an open or aborted transaction."""
ENTITIES = ("tasks", "experiences", "ready", "steps", "weights", "dlq")


class Origin(NamedTuple):
    """Names one event of the log."""

    entity: str
    partition: int
    offset: int


def origin(event: Event) -> Origin:
    """Return where this event stands."""
    return Origin(event.entity, event.partition, event.offset)


def original(dead_letter: Event) -> Origin | None:
    """Return where the event stood that became this dead letter; None for junk on ``dlq``."""
    headers = dict(dead_letter.headers)
    topic = headers.get("rft.error.topic")
    if topic is None:
        return None
    entity = topic.decode().split(".")[-2]
    return Origin(entity, int(headers["rft.error.partition"] or b""), int(headers["rft.error.offset"] or b""))


class Watch(BackgroundThread):
    """A thread that reads all topics of a run, and survives outages of the broker."""

    def __init__(self, config: Config) -> None:
        """``config`` names the broker's direct address."""
        super().__init__("watch")
        self._config = config
        self._newest: dict[tuple[str, str], int] = {}
        self._count = dict.fromkeys(ENTITIES, 0)
        self._dead_letters: set[Origin] = set()
        self._step = 0
        self._originals: deque[Event] = deque(maxlen=50)
        self._tasks: deque[Event] = deque(maxlen=50)
        self._begun: set[bytes | None] = set()
        self._positions: dict[tuple[str, int], int] = {}

    def wrote(self, entity: str, since_ms: int, by: str = "") -> bool:
        """Return whether an event with a later timestamp has come, from a writer whose name plus ``$`` holds ``by``."""
        return any(
            name == entity and by in f"{source}$" and at > since_ms for (name, source), at in list(self._newest.items())
        )

    def count(self, entity: str) -> int:
        """Return the number of events so far."""
        return self._count[entity]

    def dead_letters(self) -> set[Origin]:
        """Return the events that have become dead letters."""
        return set(self._dead_letters)

    def experiences(self) -> list[Event]:
        """Return the last experiences of the run's explorers."""
        return list(self._originals)

    def open_tasks(self) -> list[Event]:
        """Return the last tasks of which no experience has come."""
        return [event for event in list(self._tasks) if event.key not in self._begun]

    @property
    def step(self) -> int:
        """The newest gradient step."""
        return self._step

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with EventReader(
                    self._config, "chaos-watch", ENTITIES, positions=self._positions, **COMMITTED
                ) as reader:
                    while not self._stop.is_set():
                        for event in reader.poll(0.1):
                            self._add(event)
                        self._positions = reader.positions
            except RftError:
                time.sleep(0.2)  # the broker is down, which is one of the faults

    def _add(self, event: Event) -> None:
        headers = dict(event.headers)
        source = (headers.get("ce_source") or b"").decode()
        if event.entity == "steps":
            try:
                record = event.record(TrainingStep)
            except DecodeError:
                return  # junk
            if record.kind != "step":
                return
            source = record.incarnation
            self._step = max(self._step, record.step)
        elif event.entity == "dlq":
            if (at := original(event)) is not None:
                self._dead_letters.add(at)
        elif not source:
            return  # junk, or a stranger's event
        elif event.entity == "experiences":
            self._originals.append(event)
            self._begun.add(event.key)
        elif event.entity == "tasks":
            self._tasks.append(event)
        self._count[event.entity] += 1
        key = event.entity, source
        self._newest[key] = max(self._newest.get(key, 0), event.timestamp_ms)
