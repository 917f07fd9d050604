from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import require_kafka_home
from kafka_cluster import KafkaCluster
from oauth_node import OAuthNode, start_oauth_node
from secure_node import SecureNode, start_secure_node
from token_server import TokenServer

from rft.config import Config
from tests.consumers.processors.processor_worker import ENTRY, Worker


@pytest.fixture(scope="session")
def secure_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNode]:
    """Start a node with a listener for each security protocol."""
    require_kafka_home()
    node = start_secure_node(tmp_path_factory.mktemp("secure"))
    yield node
    node.broker.stop()


@pytest.fixture(scope="session")
def oauth_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthNode]:
    """Start a node that takes tokens, and the server that gives them."""
    require_kafka_home()
    with TokenServer() as tokens:
        node = start_oauth_node(tmp_path_factory.mktemp("oauth"), tokens)
        yield node
        node.broker.stop()


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A cluster of three nodes. Whoever ends nodes starts them again; ``kafka_cluster.start()`` does."""
    cluster = KafkaCluster(require_kafka_home(), tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[[Config], Worker]]:
    """``start_worker(config)`` starts a processor as a process and waits until it has partitions."""
    started: list[Worker] = []

    def start(config: Config, *, before: str = "") -> Worker:
        """``before`` is Python code that the process runs before the role."""
        worker = Worker(config, tmp_path, f"worker-{len(started)}", f"{before}\n{ENTRY}")
        started.append(worker)
        worker.wait_until_ready()
        return worker

    yield start
    for worker in started:
        worker.kill()
