"""Asks a cluster what it knows, and does what its operators do: elections, more partitions, topics created again."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, for_code

START_S = 90.0
"""A busy machine with two cores needs this long in the worst case; a quiet one needs 10 s for three nodes."""
ANSWER_S = 30.0
"""How long a question to the cluster may take, an election of its controller included."""

Answer = TypeVar("Answer")


class ClusterAdmin(ABC):
    """An operator of a cluster whose nodes may be away."""

    @abstractmethod
    def admin_client(self) -> KafkaAdminClient:
        """Return a client of the nodes that run. Raises KafkaError if none answers."""

    @abstractmethod
    def last_lines(self, count: int = 15) -> str:
        """Return the last lines of each node's log."""

    # What the cluster knows

    def controller(self) -> int:
        """Return the id of the active controller."""
        return int(self.ask(lambda admin: admin.describe_metadata_quorum()["topics"][0]["partitions"][0]["leader_id"]))

    def brokers(self) -> list[int]:
        """Return the ids of the nodes that are in the cluster."""
        return [broker["broker_id"] for broker in self.ask(lambda admin: admin.describe_cluster())["brokers"]]

    def topics(self) -> list[str]:
        """Return the names of all topics, without those of Kafka itself."""
        return sorted(name for name in self.ask(lambda admin: admin.list_topics()) if not name.startswith("__"))

    def partitions(self, topic: str) -> dict[int, dict[str, Any]]:
        """Return the metadata of each partition of a topic: ``leader_id``, ``isr_nodes``, ``replica_nodes``."""

        def describe(admin: KafkaAdminClient) -> dict[int, dict[str, Any]]:
            [found] = admin.describe_topics([topic])
            if found["error_code"]:
                raise for_code(found["error_code"])(topic)  # a node may not know a new topic yet
            return {partition["partition_index"]: partition for partition in found["partitions"]}

        return self.ask(describe)

    def leader_of(self, topic: str, partition: int) -> int:
        """Return the id of a partition's leader; −1 if it has none."""
        return int(self.partitions(topic)[partition]["leader_id"])

    def in_sync_replicas(self, topic: str, partition: int) -> list[int]:
        """Return the ids of the nodes that a write must reach."""
        return sorted(self.partitions(topic)[partition]["isr_nodes"])

    def wait_until_whole(self, timeout_s: float = START_S, topics: Sequence[str] | None = None) -> None:
        """Return when each partition has a leader and all its replicas are in sync."""

        def whole() -> bool:
            described = self.ask(lambda admin: admin.describe_topics(topics))
            return all(
                partition["leader_id"] >= 0 and set(partition["isr_nodes"]) == set(partition["replica_nodes"])
                for topic in described
                for partition in topic["partitions"]
            )

        self.wait_until(whole, timeout_s, "all replicas are in sync")

    # What its operators do

    def change_preferred(self, topics: Collection[str] | None = None) -> None:
        """Make another replica of each partition the preferred one. Leaders stay until an election."""

        def rotate(admin: KafkaAdminClient) -> None:
            described = admin.describe_topics(list(topics) if topics is not None else None)
            replicas = {
                TopicPartition(topic["name"], one["partition_index"]): one["replica_nodes"]
                for topic in described
                for one in topic["partitions"]
            }
            admin.alter_partition_reassignments({at: [*nodes[1:], nodes[0]] for at, nodes in replicas.items()})

        self.ask(rotate)

    def elect_preferred(self, topics: Collection[str] | None = None) -> None:
        """Give each partition back to the first of its replicas."""
        self._elect(0, topics)

    def elect_unclean(self, topics: Collection[str] | None = None) -> None:
        """Give each partition without a leader to a live replica, in sync or not. Acknowledged events may be lost."""
        self._elect(1, topics)

    def add_partitions(self, topic: str, count: int) -> None:
        """Raise the number of a topic's partitions to ``count``."""
        self.ask(lambda admin: admin.create_partitions({topic: count}, timeout_ms=10_000))
        self.wait_until(lambda: len(self.partitions(topic)) == count, ANSWER_S, f"{topic} has {count} partitions")

    def recreate_topic(self, topic: str) -> None:
        """Delete a topic and create it again with the same partitions and settings, without any event."""
        [described] = self.ask(lambda admin: admin.describe_topics([topic]))
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = self.ask(lambda admin: admin.describe_configs([resource], config_filter="modified"))["topic"][topic]
        spec = {
            "num_partitions": len(described["partitions"]),
            "replication_factor": len(described["partitions"][0]["replica_nodes"]),
            "configs": {key: entry["value"] for key, entry in found.items()},
        }
        self.ask(lambda admin: admin.delete_topics([topic], timeout_ms=10_000))
        self.wait_until(lambda: topic not in self.topics(), ANSWER_S, f"{topic} is deleted")
        self.ask(lambda admin: admin.create_topics({topic: spec}, timeout_ms=10_000))
        self.wait_until(lambda: topic in self.topics(), ANSWER_S, f"{topic} is there again")

    def ask(self, question: Callable[[KafkaAdminClient], Answer], timeout_s: float = ANSWER_S) -> Answer:
        """Return the answer of an admin client, tried again while nodes or the controller are away."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with contextlib.closing(self.admin_client()) as admin:
                    return question(admin)
            except KafkaError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Raise AssertionError with the nodes' last lines unless ``condition`` comes true in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}\n{self.last_lines()}"
            time.sleep(0.2)

    def _elect(self, kind: int, topics: Collection[str] | None) -> None:
        def elect(admin: KafkaAdminClient) -> None:
            described = admin.describe_topics(list(topics) if topics is not None else None)
            asked = {topic["name"]: [p["partition_index"] for p in topic["partitions"]] for topic in described}
            admin.elect_leaders(kind, asked, timeout_ms=10_000, raise_errors=False)

        self.ask(elect)
