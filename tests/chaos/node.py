"""An Apache Kafka node whose clients connect through a proxy; observers connect directly."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from chaos.proxy import Proxy
from infra.broker import BrokerProcess
from infra.kafka_node import KafkaNode
from infra.processes import HOST, free_port
from rft.config import Config
from rft.errors import BrokerError

TRIES = 3


class ProxiedNode:
    """The node advertises the proxy's address to clients, so all their traffic passes through the proxy.

    Raises BrokerError if there is no KAFKA_HOME or no Java.
    """

    def __init__(self, folder: Path) -> None:
        inner, self._direct, controller = free_port(), free_port(), free_port()
        self.proxy = Proxy(inner)
        outer = self.proxy.start()
        settings = {
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{inner},DIRECT://{HOST}:{self._direct},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{outer},DIRECT://{HOST}:{self._direct}",
            "inter.broker.listener.name": "DIRECT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT",
        }
        config = Config.model_validate({"broker": {"kind": "kafka"}})
        self._process = BrokerProcess(KafkaNode(config, folder / "kafka", settings), inner, folder / "broker.log")
        self.servers = f"{HOST}:{outer}"
        """Bootstrap servers for the pipeline."""
        self.direct_servers = f"{HOST}:{self._direct}"
        """Bootstrap servers for observers."""

    def start(self) -> None:
        """Start it, also after a kill. A busy machine may need more than one try. Raises the last try's BrokerError."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(BrokerError):
                self._process.start()
                return
        self._process.start()

    def ensure_started(self) -> None:
        """Start it if it does not run."""
        if not self._process.alive():
            self.start()

    def stop(self) -> None:
        self._process.stop()
        self.proxy.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL, and return when it is dead."""
        os.kill(self._process.pid, signal.SIGKILL)
        while self._process.alive():
            time.sleep(0.01)

    def last_lines(self) -> str:
        return "\n".join(self._process.last_lines(15))
