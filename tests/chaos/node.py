"""An Apache Kafka cluster of one node or several, whose clients connect through proxies; observers connect directly."""

from __future__ import annotations

import contextlib
from pathlib import Path

from kafka_cluster import KafkaCluster

from chaos.proxy import Proxy
from infra.kafka_node import kafka_home
from rft.config import BrokerConfig
from rft.errors import BrokerError

TRIES = 3


class ProxiedCluster:
    """Each node makes a proxy's address known to clients, and another one's to the other nodes.

    So all traffic passes through proxies. Raises BrokerError if there is no KAFKA_HOME or no Java.
    """

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.proxies: list[Proxy] = []
        """Between the clients and each node."""
        self._replication: dict[int, Proxy] = {}
        home = kafka_home(BrokerConfig(kind="kafka"))
        self.cluster = KafkaCluster(home, folder / "kafka", nodes, advertise=self._advertise, archive_classes=nodes > 1)
        self.servers = self.cluster.bootstrap_servers
        """Bootstrap servers for the pipeline."""
        self.direct_servers = self.cluster.direct_servers
        """Bootstrap servers for observers."""
        self.copies = nodes
        """Replicas of each partition."""

    def start(self) -> None:
        """Start all nodes, also after a kill. A busy machine may need more than one try."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(BrokerError):
                self.cluster.start()
                return
        self.cluster.start()

    def ensure_whole(self) -> None:
        """Start nodes that do not run, restore all connections, and wait until each partition has all its replicas."""
        self.restore()
        self.start()
        self.cluster.wait_until_whole()

    def restore(self) -> None:
        """End what the proxies do."""
        for proxy in (*self.proxies, *self._replication.values()):
            proxy.restore()

    def stop_replication(self, leader: int) -> None:
        """Let no other node replicate from ``leader`` until :meth:`restore`; clients and controllers reach it."""
        self._replication[leader].cut()

    def stop(self) -> None:
        self.cluster.stop()
        for proxy in (*self.proxies, *self._replication.values()):
            proxy.stop()

    def _advertise(self, node: int, use: str, port: int) -> int:
        proxy = Proxy(port)
        if use == "clients":
            self.proxies.append(proxy)
        else:
            self._replication[node] = proxy
        return proxy.start()
