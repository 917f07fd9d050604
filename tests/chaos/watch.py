"""Follows a run's log from beside the pipeline, past the proxy: who wrote what last, and which letters are dead."""

from __future__ import annotations

import threading
import time

from rft.config import Config
from rft.errors import RftError
from rft.log.events import Event, EventReader
from schemas.events import TrainingStep

ENTITIES = ("tasks", "experiences", "ready", "steps", "weights", "dlq")
Place = tuple[int, int]


class Watch:
    """A thread that reads all topics of a run. Survives its broker."""

    def __init__(self, config: Config) -> None:
        """``config`` names servers past the proxy."""
        self._config = config
        self._newest: dict[tuple[str, str], int] = {}
        self._count = dict.fromkeys(ENTITIES, 0)
        self._letters: set[Place] = set()
        self._step = 0
        self._positions: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(20)

    def wrote(self, entity: str, since_ms: int, by: str = "") -> bool:
        """Whether an event with a later time stamp has come, from a writer whose name, ended by ``$``, holds ``by``."""
        return any(
            name == entity and by in f"{source}$" and at > since_ms for (name, source), at in list(self._newest.items())
        )

    def count(self, entity: str) -> int:
        """Events seen so far."""
        return self._count[entity]

    def letters(self) -> set[Place]:
        """Places in ``experiences`` whose events have become dead letters."""
        return set(self._letters)

    @property
    def step(self) -> int:
        """The newest gradient step."""
        return self._step

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with EventReader(self._config, "chaos-watch", ENTITIES, positions=self._positions) as reader:
                    while not self._stop.is_set():
                        for event in reader.poll(0.1):
                            self._take(event)
                        self._positions = reader.positions
            except RftError:
                time.sleep(0.2)  # the broker is away, as it is meant to be now and then

    def _take(self, event: Event) -> None:
        headers = dict(event.headers)
        source = (headers.get("ce_source") or b"").decode()
        if event.entity == "steps":
            record = event.record(TrainingStep)
            if record.kind != "step":
                return
            source = record.incarnation
            self._step = max(self._step, record.step)
        elif event.entity == "dlq":
            self._letters.add((int(headers["rft.error.partition"] or b""), int(headers["rft.error.offset"] or b"")))
        elif event.entity == "experiences" and not source:
            return  # poison
        self._count[event.entity] += 1
        key = event.entity, source
        self._newest[key] = max(self._newest.get(key, 0), event.timestamp_ms)
