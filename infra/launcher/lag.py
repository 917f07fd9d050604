"""Measures how many events each topic holds, and how many of them wait for their readers."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any, Self

from kafka import TopicPartition
from kafka.errors import CoordinatorNotAvailableError

from rft.config import Config
from rft.log.clients import make_admin
from rft.log.offset_queries import OffsetReader
from rft.log.topics import ENTITIES, topic_name

MEASURED = ("tasks", "experiences", "ready", "dlq")
READERS = {"tasks": "explorers", "experiences": "processors"}
"""Consumer groups, ``<namespace>.<name>``, that commit offsets, by topic."""


class LagMeter:
    """Queries the broker over one open connection."""

    def __init__(self, config: Config) -> None:
        self._entities = {topic_name(config, entity): entity for entity in MEASURED}
        self._groups = {f"{config.log.namespace}.{group}": entity for entity, group in READERS.items()}
        self._partitions = {
            TopicPartition(topic_name(config, entity), number)
            for entity in MEASURED
            for number in range(ENTITIES[entity].partitions(config.log))
        }
        self._ends = OffsetReader(config, "launcher-lag")
        self._admin = make_admin(config, "launcher-lag")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admin.close()
        self._ends.close()

    def measure(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return (events of each topic, events that its group has not committed yet).

        Raises BrokerError or KafkaError if the broker is gone.
        """
        totals = self.totals()
        lags = {}
        for group, entity in self._groups.items():
            done = sum(max(0, at.offset) for where, at in self._committed(group).items() if where in self._partitions)
            lags[entity] = max(0, totals[entity] - done)
        return totals, lags

    def totals(self) -> dict[str, int]:
        """Return the events of each topic, counted from offset 0. Raises BrokerError if the broker is gone."""
        totals = Counter(dict.fromkeys(MEASURED, 0))
        for partition, end in self._ends.ask(self._partitions).items():
            totals[self._entities[partition.topic]] += end
        return dict(totals)

    def _committed(self, group: str) -> dict[TopicPartition, Any]:
        try:
            committed: dict[TopicPartition, Any] = self._admin.list_group_offsets({group: None}).get(group, {})
            return committed
        except CoordinatorNotAvailableError:
            # A new cluster creates its topic of offsets when the first group joins. Until then nothing is committed.
            return {}
