"""Runs a real Apache Kafka cluster on loopback: several nodes, each broker and controller, with data of its own.

It does to a cluster what its operators and its hardware do: kill, stop, pause and restart nodes, elect leaders, add
partitions, delete and create topics. Nodes are named by their ids, 1 to ``nodes``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from class_archive import ClassArchive
from cluster_admin import START_S, ClusterAdmin
from kafka import KafkaAdminClient

from infra.kafka_node import KafkaNode
from infra.processes import HOST, free_port, last_lines, spawn, terminate
from rft.config import BrokerConfig, Config
from rft.errors import BrokerError
from rft.log.probe import probe

SETTINGS = {
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.election.backoff.max.ms": "500",
    "controller.quorum.fetch.timeout.ms": "2000",
    "controller.quorum.request.timeout.ms": "1000",
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    "replica.lag.time.max.ms": "5000",
    "controlled.shutdown.retry.backoff.ms": "500",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "auto.create.topics.enable": "false",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.threads": "1",
}
"""Failures are noticed within seconds. With Kafka's own values a node counts as dead after 9 s, and a follower that
stands still leaves the in-sync replicas after 30 s."""
HEAP = ("-Xms64m", "-Xmx256m")
"""Of each node, unless the environment has KAFKA_HEAP_OPTS."""


@dataclass
class _Node:
    number: int
    port: int
    """Listener of clients."""
    direct: int
    """Listener of observers, which no proxy stands before."""
    kafka: KafkaNode
    log_path: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class KafkaCluster(ClusterAdmin):
    """Nodes 1 to ``nodes``. Start it before anything else, and stop it at the end; its processes end with ours."""

    def __init__(
        self,
        kafka_home: str | Path,
        folder: Path,
        nodes: int = 3,
        *,
        advertise: Callable[[int, str, int], int] | None = None,
        rebalance_leaders: bool = False,
        min_in_sync: int | None = None,
        archive_classes: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """``advertise(node, use, port)`` returns the port that a node makes known for its port: a proxy's. It is
        called for the uses ``clients`` and ``replication``.

        ``rebalance_leaders`` lets the cluster elect preferred leaders by itself. ``min_in_sync`` is the default of new
        topics' ``min.insync.replicas`` (2 with three nodes). ``settings`` override those of all nodes.
        ``archive_classes`` makes the first start slower, and halves the CPU time of all others.
        """
        config = Config.model_validate({"broker": {"kind": "kafka", "kafka_home": str(kafka_home)}})
        ids = range(1, nodes + 1)
        voters = {number: free_port() for number in ids}
        copies = str(nodes)
        in_sync = str(min_in_sync or max(1, nodes - 1))
        common = {
            **SETTINGS,
            "controller.quorum.voters": ",".join(f"{n}@{HOST}:{port}" for n, port in voters.items()),
            "inter.broker.listener.name": "REPLICATION",
            "listener.security.protocol.map": ",".join(
                f"{name}:PLAINTEXT" for name in ("CONTROLLER", "PLAINTEXT", "REPLICATION", "DIRECT")
            ),
            "min.insync.replicas": in_sync,
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_sync,
            "auto.leader.rebalance.enable": "true" if rebalance_leaders else "false",
            "leader.imbalance.check.interval.seconds": "5",
            **(settings or {}),
        }
        self._classes = ClassArchive(folder)
        self._writer = 1 if archive_classes else None
        """The node that is started to write the archive of classes."""
        self._nodes: dict[int, _Node] = {}
        servers = []
        for number in ids:
            port, replication, direct = free_port(), free_port(), free_port()
            known = [port, replication] if advertise is None else [
                advertise(number, "clients", port), advertise(number, "replication", replication)
            ]  # fmt: skip
            servers.append(f"{HOST}:{known[0]}")
            own = {
                **common,
                "node.id": str(number),
                "listeners": f"{_listeners(port, replication, direct)},CONTROLLER://{HOST}:{voters[number]}",
                "advertised.listeners": _listeners(*known, direct),
            }
            kafka = KafkaNode(config, folder / f"node-{number}", own)
            self._nodes[number] = _Node(number, port, direct, kafka, folder / f"node-{number}.log")
        self.bootstrap_servers = ",".join(servers)
        """``host:port`` of all nodes, for clients."""
        self.direct_servers = ",".join(f"{HOST}:{node.direct}" for node in self._nodes.values())
        """The same, past any proxy."""

    # Nodes

    @property
    def numbers(self) -> list[int]:
        """The ids of all nodes."""
        return list(self._nodes)

    @property
    def alive(self) -> list[int]:
        """The ids of the nodes whose processes run, paused ones included."""
        return [number for number, node in self._nodes.items() if node.alive]

    def start(self) -> None:
        """Start every node that does not run, and wait until all serve and know each other."""
        down = [node for node in self._nodes.values() if not node.alive]
        with ThreadPoolExecutor(len(self._nodes)) as pool:
            list(pool.map(self._spawn, down))  # a folder that is new is formatted, which takes two seconds
        for node in down:
            self._wait_until_served(node)
        self.wait_until(lambda: set(self.brokers()) == set(self._nodes), START_S, "all nodes are in the cluster")
        if writer := self._writer:
            self._writer = None
            self.terminate(writer)
            self._classes.keep()
            self.start()

    def stop(self) -> None:
        """End all nodes at once. Their data stays."""
        with ThreadPoolExecutor(len(self._nodes)) as pool:
            list(pool.map(self._end, self._nodes.values()))

    def kill(self, number: int) -> None:
        """Kill a node with SIGKILL, and return when it is dead."""
        node = self._running(number)
        os.kill(node.pid, signal.SIGKILL)
        node.wait()

    def terminate(self, number: int, timeout_s: float = 40.0) -> None:
        """End a node with SIGTERM: it hands its leaderships over first."""
        terminate(self._running(number), timeout_s)

    def restart(self, number: int) -> None:
        """Start a node that has ended, on its former data and ports, and return when it serves clients."""
        node = self._nodes[number]
        if not node.alive:
            self._spawn(node)
        self._wait_until_served(node)

    @contextlib.contextmanager
    def paused(self, number: int) -> Iterator[None]:
        """Suspend a node (SIGSTOP), and resume it in the end."""
        self.pause(number)
        try:
            yield
        finally:
            self.resume(number)

    def pause(self, number: int) -> None:
        self._running(number).send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        self._running(number).send_signal(signal.SIGCONT)

    def last_lines(self, count: int = 15) -> str:
        """Return the last lines of each node's log."""
        return "\n".join(
            f"--- node {node.number}\n" + "\n".join(last_lines(node.log_path, count)) for node in self._nodes.values()
        )

    def admin_client(self) -> KafkaAdminClient:
        return KafkaAdminClient(
            bootstrap_servers=[f"{HOST}:{self._nodes[number].direct}" for number in self.alive],
            client_id="operator",
            bootstrap_timeout_ms=5_000,
            request_timeout_ms=15_000,
            reconnect_backoff_max_ms=500,
        )

    def _running(self, number: int) -> subprocess.Popen[bytes]:
        process = self._nodes[number].process
        assert process is not None
        assert process.poll() is None, f"node {number} does not run"
        return process

    def _spawn(self, node: _Node) -> None:
        command, env = node.kafka.prepare(node.port)
        if "KAFKA_HEAP_OPTS" not in os.environ:
            command = [command[0], *HEAP, *(option for option in command[1:] if not option.startswith("-Xm"))]
        command[1:1] = self._classes.writing_options if node.number == self._writer else self._classes.options
        node.process = spawn(command, node.log_path, {**os.environ, **env})

    def _wait_until_served(self, node: _Node) -> None:
        deadline = time.monotonic() + START_S
        while True:
            assert node.process is not None
            if not node.alive:
                raise BrokerError(f"node {node.number} ended with {node.process.poll()}:\n{self.last_lines()}")
            try:
                return probe(BrokerConfig(connect_timeout_s=1), [f"{HOST}:{node.direct}"])
            except BrokerError as error:
                if time.monotonic() > deadline:
                    raise BrokerError(f"node {node.number} does not serve:\n{self.last_lines()}") from error
            time.sleep(0.1)

    @staticmethod
    def _end(node: _Node) -> None:
        if node.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            node.process.send_signal(signal.SIGCONT)
        terminate(node.process, 10.0)


def _listeners(port: int, replication: int, direct: int) -> str:
    named = {"PLAINTEXT": port, "REPLICATION": replication, "DIRECT": direct}
    return ",".join(f"{name}://{HOST}:{at}" for name, at in named.items())
