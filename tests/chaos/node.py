"""An Apache Kafka node whose clients come through a proxy, and a way past it for those who watch."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from chaos.proxy import Proxy
from infra.broker import BrokerProcess
from infra.kafka_node import KafkaNode
from infra.ports import HOST, free_port
from rft.config import Config
from rft.errors import BrokerError

TRIES = 3


class ProxiedNode:
    """The listener that it advertises to clients is the proxy's, so nothing of theirs passes it by.

    BrokerError if there is no KAFKA_HOME or no Java.
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
        """For the pipeline."""
        self.direct_servers = f"{HOST}:{self._direct}"
        """For those who watch it."""

    def start(self) -> None:
        """Start it, also after a kill. A busy machine may need more than one try; BrokerError after the last."""
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
        """``kill -9``, and return when it is dead."""
        os.kill(self._process.pid, signal.SIGKILL)
        while self._process.alive():
            time.sleep(0.01)

    def last_lines(self) -> str:
        return "\n".join(self._process.last_lines(15))
