"""An Apache Kafka node of a test's own, which it may kill and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from brokers import require_kafka_home

from infra.broker import BrokerProcess, open_broker
from rft.config import Config


class OwnNode:
    """One node that comes back with its data, on the same port."""

    def __init__(self, folder: Path) -> None:
        require_kafka_home()
        broker = open_broker(Config.model_validate({"broker": {"kind": "kafka"}}), folder)
        assert broker is not None
        self._process: BrokerProcess = broker
        self.servers = broker.start()

    def kill(self) -> None:
        """Kill it with SIGKILL, and return when it is dead."""
        os.kill(self._process.pid, signal.SIGKILL)
        while self._process.alive():
            time.sleep(0.01)

    def start(self) -> None:
        """Start it again if it does not run."""
        if not self._process.alive():
            self._process.start()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Kill it, and start it again in the end."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def stop(self) -> None:
        self._process.stop()
