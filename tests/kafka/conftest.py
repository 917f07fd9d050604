from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from brokers import require_kafka_home, required
from secure_node import SecureNode, start_secure_node


@pytest.fixture(scope="session")
def secure_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNode]:
    """A node with a listener for each security protocol."""
    require_kafka_home()
    if shutil.which("openssl") is None:
        reason = "no openssl to make certificates with"
        pytest.fail(reason) if required("kafka") else pytest.skip(reason)
    node = start_secure_node(tmp_path_factory.mktemp("secure"))
    yield node
    node.broker.stop()
