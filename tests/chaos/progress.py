"""Watches from outside whether the consumer groups of a run make progress, by their lag and committed offsets.

A role that runs but commits nothing, while events wait that it could read, stands still in silence.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from chaos.background import BackgroundThread
from rft.config import Config
from rft.errors import RftError
from rft.log.clients import make_consumer
from rft.log.topics import consumer_group, topic_name

GROUPS = {"explorers": ("tasks",), "processors": ("experiences", "rewards")}
"""What each consumer group reads. Processors read rewards only if they wait for external ones."""
STALL_S = 60.0
"""A committed offset may stand still beside lag for this time while the cluster is whole."""
_EVERY_S = 1.0
_ANSWER_MS = 5_000


class Lane(NamedTuple):
    """One partition as one consumer group reads it."""

    group: str
    topic: str
    partition: int


@dataclass(frozen=True)
class Standing:
    """How far a group has come in one partition."""

    committed: int
    end: int
    """The last stable offset: what a reader of committed events can reach."""


@dataclass(frozen=True)
class Stall:
    lane: Lane
    standing: Standing
    seconds: float

    @property
    def text(self) -> str:
        group, topic, partition = self.lane
        lag = self.standing.end - self.standing.committed
        return f"{group} stand at {topic}, partition {partition}, offset {self.standing.committed} with a lag of {lag}"


class StallDetector:
    """Finds partitions whose committed offset stands still beside lag. Pure."""

    def __init__(self, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s
        self._since: dict[Lane, tuple[int, float]] = {}

    def observe(self, now: float, standings: Mapping[Lane, Standing]) -> list[Stall]:
        """Return the partitions that have stood still for too long, each once until it moves."""
        stalls = []
        for lane, standing in standings.items():
            if standing.committed >= standing.end:
                self._since.pop(lane, None)
                continue
            committed, since = self._since.get(lane, (None, now))
            if standing.committed != committed:
                since = now
            elif now - since > self._stall_s:
                stalls.append(Stall(lane, standing, now - since))
                since = now
            self._since[lane] = standing.committed, since
        return stalls

    def forgive(self) -> None:
        """Start all times again: the cluster was not whole."""
        self._since.clear()


class Progress(BackgroundThread):
    """A thread that asks for lag and committed offsets all the time, and survives outages of the cluster."""

    def __init__(self, config: Config) -> None:
        """``config`` names the broker's direct address."""
        super().__init__("progress")
        self._config = config
        self._detector = StallDetector()
        self._standings: dict[Lane, Standing] = {}
        self._seen: dict[Lane, Standing] = {}
        self._unreadable: dict[Lane, Standing] = {}
        """Standings behind which there are only markers and aborted events, which no consumer is given."""
        self._asked_at = 0.0
        self._at_fault = False
        self._stalls: list[tuple[int, Stall]] = []

    @property
    def stalls(self) -> list[tuple[int, Stall]]:
        """Every stall so far, with the Unix time (ms) when it was noticed."""
        return list(self._stalls)

    @contextlib.contextmanager
    def fault(self) -> Iterator[None]:
        """Count no time as a stall while a fault lasts."""
        self._at_fault = True
        try:
            yield
        finally:
            self._detector.forgive()
            self._at_fault = False

    def ends(self) -> dict[Lane, int] | None:
        """Return how far each group could read after now; None if that is not known within some seconds."""
        asked = time.monotonic()
        while self._asked_at < asked:
            if time.monotonic() - asked > _ANSWER_MS / 1000 or self._stop.is_set():
                return None
            time.sleep(0.05)
        return {lane: standing.end for lane, standing in self._standings.items()}

    def behind(self, ends: Mapping[Lane, int]) -> list[Lane]:
        """Return the partitions whose events up to there are not all committed."""
        standings = self._standings
        return [lane for lane, end in ends.items() if lane not in standings or standings[lane].committed < end]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with contextlib.ExitStack() as stack:
                    consumers = {group: stack.enter_context(self._consumer(group)) for group in GROUPS}
                    while not self._stop.wait(_EVERY_S):
                        self._ask(consumers)
            except (RftError, KafkaError, KeyError):  # kafka-python raises the last for a leader that it does not know
                self._stop.wait(0.5)  # nodes are down, which is one of the faults

    @contextlib.contextmanager
    def _consumer(self, group: str) -> Iterator[KafkaConsumer]:
        """Open a consumer that asks about a group without being a member: it has partitions assigned by hand."""
        consumer = make_consumer(
            self._config, "chaos-progress", consumer_group(self._config, group), isolation_level="read_committed"
        )
        try:
            waits = bool(self._config.processor.external.required)
            topics = [topic_name(self._config, entity) for entity in GROUPS[group] if entity != "rewards" or waits]
            partitions = [TopicPartition(topic, n) for topic in topics for n in range(self._config.log.partitions)]
            consumer.assign(partitions)
            consumer.pause(*partitions)
            yield consumer
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)

    def _ask(self, consumers: Mapping[str, KafkaConsumer]) -> None:
        found: dict[Lane, Standing] = {}
        began = time.monotonic()
        for group, consumer in consumers.items():
            partitions = sorted(consumer.assignment())
            ends = consumer.end_offsets(partitions, timeout_ms=_ANSWER_MS)
            begins = consumer.beginning_offsets(partitions, timeout_ms=_ANSWER_MS)
            for at in partitions:
                lane = Lane(group, at.topic, at.partition)
                committed = consumer.committed(at, timeout_ms=_ANSWER_MS)
                standing = Standing(begins[at] if committed is None else committed, ends[at])
                found[lane] = self._without_markers(lane, standing)
        self._standings = found
        self._asked_at = began
        if not self._at_fault:
            at_ms = int(time.time() * 1000)
            self._stalls += [(at_ms, stall) for stall in self._detector.observe(time.monotonic(), found)]

    def _without_markers(self, lane: Lane, standing: Standing) -> Standing:
        """Return a standing at the end if a group that stands still has nothing left to read."""
        before, self._seen[lane] = self._seen.get(lane), standing
        if standing != before or standing.committed >= standing.end:
            return standing
        if self._unreadable.get(lane) != standing and self._is_readable(lane, standing):
            return standing
        self._unreadable[lane] = standing
        return Standing(standing.end, standing.end)

    def _is_readable(self, lane: Lane, standing: Standing) -> bool:
        at = TopicPartition(lane.topic, lane.partition)
        consumer = make_consumer(self._config, "chaos-progress", isolation_level="read_committed")
        try:
            consumer.assign([at])
            consumer.seek(at, standing.committed)
            deadline = time.monotonic() + _ANSWER_MS / 1000
            while time.monotonic() < deadline:
                if consumer.poll(timeout_ms=200):
                    return True
                if consumer.position(at, timeout_ms=_ANSWER_MS) >= standing.end:
                    return False
            return True
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)
