"""After a run with a local Kafka node, commands that read its log start the node on the run's data and stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from brokers import require_kafka_home
from synthetic import make_tiny_model
from typer.testing import CliRunner

from infra.cli import app
from infra.kafka_node import KAFKA_DATA
from infra.launcher import log_access
from infra.launcher.folder import FolderInUseError, locked, with_servers, write_config
from infra.launcher.log_access import reachable_log
from rft.config import Config
from rft.errors import BrokerError
from rft.log.topics import ensure_topics, topic_name
from rft.log.writer import EventWriter

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

READING = {
    "audit": (),
    "topics": (),
    "report": (),
    "dlq list": (),
    "dlq retry": ("--all",),
    "dlq discard": ("--all",),
    "lineage": ("--task", "none"),
    "replay": ("--to", "{folder}/out.jsonl"),
    "track": ("--trackers.use", '["jsonl"]'),
    "import": ("--policy.model", "{folder}/model"),
}


def settings(folder: Path) -> str:
    (folder / "rows.jsonl").write_text("")
    return (
        f'run.folder = "{folder}/runs"\nrun.name = "ended"\nbroker.kind = "kafka"\nlog.partitions = 1\n'
        f'[[imports]]\nname = "rows"\npath = "{folder}/rows.jsonl"\nkind = "demonstrations"\n'
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    require_kafka_home()
    path = tmp_path / "run.toml"
    path.write_text(settings(tmp_path))
    return path


@pytest.fixture
def config(file: Path) -> Config:
    from rft.config_sources import load_config

    return load_config(file)


class NodeStandIn:
    """Acts as the run's node, on the session's broker, and counts."""

    def __init__(self, servers: str, folder: Path) -> None:
        self.calls: list[str] = []
        self._servers, self._folder = servers, folder

    def start(self) -> str:
        with pytest.raises(FolderInUseError), locked(self._folder):
            pass
        self.calls.append("start")
        return self._servers

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def node(config: Config, kafka_broker: str, monkeypatch: pytest.MonkeyPatch) -> NodeStandIn:
    """The run has ended, its data lies in its folder, and a stand-in takes the place of the node on it."""
    formatted = config.run.path / KAFKA_DATA / "log" / "meta.properties"
    formatted.parent.mkdir(parents=True)
    formatted.touch()
    stand_in = NodeStandIn(kafka_broker, config.run.path)
    monkeypatch.setattr(log_access, "open_broker", lambda *_: stand_in)
    monkeypatch.setenv("RFT_LOG__NAMESPACE", f"ended-{os.urandom(4).hex()}")
    from rft.config_sources import load_config

    ensure_topics(with_servers(load_config(config.run.path.parents[1] / "run.toml", [], os.environ), kafka_broker))
    return stand_in


@pytest.mark.parametrize("command", READING)
def test_a_command_that_reads_the_log_of_an_ended_run_starts_its_node_and_stops_it(
    file: Path, node: NodeStandIn, command: str
) -> None:
    options = [option.format(folder=file.parent) for option in READING[command]]
    if command == "import":
        make_tiny_model(file.parent / "model")
        (file.parent / "rows.jsonl").write_text('{"prompt": "<3>", "response": "<4>"}\n')
    answer = CliRunner().invoke(app, [*command.split(), str(file), *options])
    said = answer.output + str(answer.exception)
    assert "bootstrap_servers" not in said
    assert node.calls == ["start", "stop"], said
    with locked(file.parent / "runs" / "ended"):
        pass


def test_during_a_run_its_broker_is_used_and_no_second_node_is_started(
    file: Path, config: Config, node: NodeStandIn, kafka_broker: str
) -> None:
    with locked(config.run.path):
        write_config(config.run.path, with_servers(config, kafka_broker))
        answer = CliRunner().invoke(app, ["topics", str(file)])
    assert answer.exit_code == 0, answer.output
    assert node.calls == []


def test_a_command_waits_for_the_broker_of_a_run_that_is_just_starting(config: Config, node: NodeStandIn) -> None:
    write_config(config.run.path, with_servers(config, "127.0.0.1:1"))  # of the launch before
    time.sleep(0.01)
    with locked(config.run.path):
        with pytest.raises(FolderInUseError, match="another rft run"), reachable_log(config, "rft topics", wait_s=0.3):
            pass
        write_config(config.run.path, with_servers(config, "127.0.0.1:2"))
        with reachable_log(config, "rft topics", wait_s=0.3) as found:
            assert found.broker.bootstrap_servers == "127.0.0.1:2"
    assert node.calls == []


def test_two_commands_take_turns_on_the_node(config: Config, node: NodeStandIn) -> None:
    entered, leave, done = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with reachable_log(config, "rft audit"):
            entered.set()
            leave.wait(30)
        done.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(30)
    with (
        pytest.raises(FolderInUseError, match=rf"another rft audit \(process {os.getpid()}\) works in"),
        reachable_log(config, "rft topics", wait_s=0.3),
    ):
        pass
    threading.Timer(0.3, leave.set).start()
    with reachable_log(config, "rft topics"):
        assert done.wait(30)
    thread.join()
    assert node.calls == ["start", "stop"] * 2


def test_a_run_that_never_began_is_named_and_no_node_is_started(config: Config) -> None:
    with pytest.raises(BrokerError, match=r"there is no log in .*/runs/ended/kafka"), reachable_log(config, "x"):
        pass
    assert not config.run.path.exists()


def test_an_archive_is_read_without_a_node(config: Config) -> None:
    with reachable_log(config, "rft audit", archive="/archive") as found:
        assert found.broker.bootstrap_servers is None
    assert not config.run.path.exists()


def nodes_on(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in argument for argument in process.info["cmdline"] or ()) and "kafka.Kafka" in (
            process.info["cmdline"] or ()
        ):
            found.append(process)
    return found


def test_a_real_node_serves_the_runs_own_data_and_ends_with_its_command(file: Path, config: Config) -> None:
    with reachable_log(config, "rft import", create=True) as running:
        ensure_topics(running)
        with EventWriter(running, "test") as writer:
            for _ in range(3):
                writer.send_bytes("dlq", b"junk", key=b"k")
    assert nodes_on(config.run.path) == []
    assert "log.initial.task.delay.ms=604800000\n" in (config.run.path / KAFKA_DATA / "server.properties").read_text()

    answer = subprocess.run(
        [sys.executable, "-m", "infra.cli", "topics", str(file)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    [line] = [line for line in answer.stdout.splitlines() if topic_name(config, "dlq") in line]
    assert " 3 " in line
    assert "starting its Kafka node" in answer.stderr
    assert nodes_on(config.run.path) == []

    code = (
        "import sys, time; from pathlib import Path; from rft.config_sources import load_config\n"
        "from infra.launcher.log_access import reachable_log\n"
        "with reachable_log(load_config(Path(sys.argv[1])), 'test'): print('up', flush=True); time.sleep(99)"
    )
    held = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    assert held.stdout is not None
    assert held.stdout.readline() == b"up\n"
    held.send_signal(signal.SIGTERM)
    assert held.wait(30) == 128 + signal.SIGTERM
    assert nodes_on(config.run.path) == []
