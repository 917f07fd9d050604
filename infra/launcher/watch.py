"""Reads the log while a run goes on, in its own thread, cheaply enough to share two cores with the run."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

from kafka.errors import KafkaError

from infra.launcher.lag import LagMeter
from infra.launcher.progress import Facts, Progress
from rft.config import Config
from rft.errors import MissingRangeError, RftError
from rft.log.coordinates import EntityPartition
from rft.log.reader import EventReader

PAUSE_S = 0.5
MEASURE_EVERY_S = 2.0
RETRY_S = 1.0
_FOLLOWED = ("weights", "steps", "ready", "members")

log = logging.getLogger(__name__)


class Watcher:
    """Keeps :class:`Facts` up to date. While the log cannot be read, they only get older."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._progress = Progress(config)
        self._facts = self._progress.facts()
        self._positions: dict[EntityPartition, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    @property
    def facts(self) -> Facts:
        """The newest facts. Thread-safe."""
        return self._facts

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with (
                    LagMeter(self._config) as meter,
                    EventReader(self._config, "launcher", _FOLLOWED, positions=self._positions) as reader,
                ):
                    self._follow(reader, meter)
            except MissingRangeError as error:
                # This affects only the view.
                self._positions[EntityPartition(error.entity, error.partition)] = error.end
            except (RftError, KafkaError) as error:
                log.debug("the log cannot be read now: %s", error)
                self._stop.wait(RETRY_S)

    def _follow(self, reader: EventReader, meter: LagMeter) -> None:
        measured = 0.0
        while not self._stop.is_set():
            while events := reader.poll(0.05, max_events=2000):
                for event in events:
                    self._progress.feed(event)
            self._positions = reader.positions
            now = time.monotonic()
            if now - measured >= MEASURE_EVERY_S:
                measured = now
                self._progress.measure(now, *meter.measure())
            self._facts = self._progress.facts()
            # Poll rarely: a wake-up for each of hundreds of events a second would cost the run more.
            self._stop.wait(PAUSE_S)
