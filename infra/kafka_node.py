"""Prepares one durable Apache Kafka node (KRaft) on loopback, from any folder with Kafka's ``libs/``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.processes import HOST, free_port
from rft.config import BrokerConfig, Config
from rft.errors import BrokerError
from rft.log.clients import message_limit

KAFKA_DATA = "kafka"
"""Folder of the node's data within a run's folder."""
_CLUSTER_ID = "c3RyZWFtLXJmdC1sb2NhbA"
"""Any 16 bytes in URL-safe base64. A single node needs no unique one."""


class KafkaNode:
    """One Apache Kafka node, broker and controller in one process, its data in ``data``."""

    name = "Apache Kafka"

    def __init__(
        self,
        config: Config,
        data: Path,
        settings: Mapping[str, str] | None = None,
        format_args: Sequence[str] = (),
        classpath: Sequence[Path] = (),
    ) -> None:
        """``settings`` override ours in server.properties; ``format_args`` are passed to StorageTool (SCRAM users).

        ``classpath`` are folders with further classes, such as a policy that ``settings`` name.
        """
        self._classpath = [str(folder) for folder in classpath]
        self._extra = dict(settings or {})
        self._format_args = list(format_args)
        self._home = kafka_home(config.broker)
        self._java = shutil.which("java", path=_java_path())
        if self._java is None:
            raise BrokerError("Apache Kafka needs Java 17 or later. Put java on the PATH or set JAVA_HOME")
        self._data = data.absolute()
        self._log_limit = message_limit(config.log)

    def prepare(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        """Format the data folder if it is new, and return command and environment for a node on ``port``."""
        properties = self._data / "server.properties"
        logging = self._data / "log4j2.properties"
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            properties.write_text("".join(f"{k}={v}\n" for k, v in self._settings(port).items()))
            logging.write_text(_LOG4J)
        except OSError as error:
            raise BrokerError(f"cannot prepare {self._data} for Apache Kafka: {error.strerror}") from error
        if not holds_log(self._data):
            self._format(properties)
        # Modest defaults; Kafka's own variables override them. Using only the first compiler tier halves the CPU time
        # of a start, which dominates on a laptop or in a test.
        heap = os.environ.get("KAFKA_HEAP_OPTS", "-Xms128m -Xmx512m").split()
        tuning = os.environ.get("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1").split()
        options = [*heap, *tuning, f"-Dlog4j2.configurationFile=file:{logging}"]
        return [*self._command(*options), "kafka.Kafka", str(properties)], {}

    def _command(self, *options: str) -> list[str]:
        assert self._java is not None
        return [self._java, *options, "-cp", ":".join([f"{self._home}/libs/*", *self._classpath])]

    def _settings(self, port: int) -> dict[str, str]:
        controller = free_port()
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
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
            # After a kill the node waits until its former session ends, which takes 9 s by default.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            **self._extra,
        }

    def _format(self, properties: Path) -> None:
        """Format the data folder. A format that was killed halfway is repeated."""
        shutil.rmtree(self._data / "log", ignore_errors=True)
        command = [*self._command("-Xmx128m", "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
        done = subprocess.run(
            [*command, "-t", _CLUSTER_ID, "-c", str(properties), *self._format_args],
            capture_output=True,
            text=True,
            check=False,
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


def holds_log(data: Path) -> bool:
    """Return whether a node has been started on this data folder before."""
    return (data / "log" / "meta.properties").exists()


def kafka_home(broker: BrokerConfig) -> Path:
    """Return the folder with Apache Kafka's ``libs/``. Raises BrokerError if none is named or it holds no Kafka."""
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
