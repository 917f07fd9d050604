"""Runs end as they should, with real processes and the embedded broker; small programs act as the roles."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import string
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from brokers import require_kafka_home

from tests.inputs.small_model import make_small_model

DRIVER = Path(__file__).with_name("drive_launch.py")
FOREVER = "import time\nwhile True: time.sleep(1)"
POLITE = (
    "import signal, sys\n"
    "def stop(*_): print('clean', flush=True); sys.exit(0)\n"
    f"signal.signal(signal.SIGTERM, stop)\nprint('ready', flush=True)\n{FOREVER}"
)
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\n{FOREVER}"
PUBLISH = """
import sys
from pathlib import Path
from rft.config_sources import load_config
from rft.log.writer import EventWriter
from schemas.events import Task, WeightVersion
def publish(entity, record):
    with EventWriter(load_config(Path(sys.argv[1])), "test") as writer:
        writer.send(entity, record)
        writer.flush(10)
"""
FINAL_VERSION = f"{PUBLISH}\npublish('weights', WeightVersion('policy', 1, 1, 'checkpoint', 'w', '0', 1, True, 0))"
A_TASK = f"{PUBLISH}\npublish('tasks', Task('g', 0, 'train', 's', 'p', None, 1, 1, 1.0, 1.0, 0, 0, 0))"
DONE_SOON = "import time; time.sleep(2)"


class Launched:
    """A launcher, its output and its processes."""

    def __init__(
        self, folder: Path, programs: dict[str, str], settings: str = "", *arguments: str, terminal: int | None = None
    ) -> None:
        make_small_model(folder / "model", context=2048, characters=string.printable)
        self.config = folder / "run.toml"
        self.config.write_text(
            f'run.folder = "{folder}/runs"\nrun.name = "test"\npolicy.model = "{folder}/model"\n'
            f"launcher.backoff_s = 0.1\nlog.partitions = 1\n{settings}"
        )
        self.path = folder / "runs" / "test"
        self.output = folder / "output.txt"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVER), str(self.config), json.dumps(programs), *arguments],
                stdout=output if terminal is None else terminal,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, timeout_s: float = 90) -> None:
        self.until(lambda: text in self.text, timeout_s, text)

    def wait_for_log(self, name: str, text: str, timeout_s: float = 90) -> None:
        """Wait until a role has printed this: before, it may not handle signals yet."""
        log = self.path / "logs" / f"{name}.log"
        self.until(lambda: log.exists() and text in log.read_text(), timeout_s, f"{text} in {log}")

    def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"no {what}:\n{self.text}"
            time.sleep(0.05)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_for_children(self, count: int) -> list[psutil.Process]:
        """Return broker and roles, once all of them run their own programs."""
        self.until(lambda: len(self.children()) == count, 90, f"{count} children")
        time.sleep(0.3)
        return self.children()

    def end(self, timeout_s: float = 20) -> int:
        return self.process.wait(timeout_s)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(*arguments: Any, **options: Any) -> Launched:
        run = Launched(tmp_path, *arguments, **options)
        started.append(run)
        return run

    yield start
    for run in started:
        run.process.kill()
        run.process.wait()


def assert_gone(processes: list[psutil.Process], within_s: float = 3) -> None:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    assert alive == []


def test_the_conductor_s_end_ends_the_run_and_leaves_no_process(launched):
    run = launched({"conductor": DONE_SOON, "trainer": "pass", "explorer-0": FOREVER})
    children = run.wait_for_children(3)
    assert run.end() == 0
    assert_gone(children)
    assert "restart" not in run.text
    assert json.loads((run.path / "report.json").read_text())["finished"] is False
    assert "<html" in (run.path / "report.html").read_text()


def test_roles_get_the_resolved_configuration_and_logs_of_their_own(launched):
    show = "import sys; print(open(sys.argv[1]).read())"
    run = launched({"conductor": show}, "trainer.steps = 7\n")
    assert run.end() == 0
    shown = (run.path / "logs" / "conductor.log").read_text()
    assert "steps = 7" in shown
    assert 'bootstrap_servers = "127.0.0.1:' in shown


def test_a_role_that_is_killed_is_started_again(launched):
    run = launched({"conductor": "import time; time.sleep(6)", "explorer-0": FOREVER})
    children = run.wait_for_children(3)
    (explorer,) = [child for child in children if "while True" in " ".join(child.cmdline())]
    explorer.kill()
    run.wait_for("explorer-0 was killed by SIGKILL; restart 1 of at most 5")
    run.until(lambda: len(run.children()) == 3, 5, "new explorer")
    assert run.end() == 0


def test_a_role_that_keeps_dying_ends_the_run_with_its_last_lines(launched):
    dies = "import sys; print('the reason'); sys.exit(7)"
    run = launched({"conductor": FOREVER, "explorer-0": dies}, "launcher.restart_limit = 2\n")
    children = run.wait_for_children(2)
    assert run.end() == 1
    assert_gone(children)
    assert run.text.count("restart ") == 2
    assert "failed: explorer-0 ended with exit code 7" in run.text
    assert "  the reason" in run.text


def test_a_role_that_finds_the_configuration_wrong_ends_the_run_at_once(launched):
    run = launched({"conductor": FOREVER, "trainer": "import sys; print('wrong key'); sys.exit(2)"})
    assert run.end() == 2
    assert "restart" not in run.text
    assert "wrong key" in run.text


def test_a_role_that_names_the_same_lasting_error_twice_ends_the_run(launched):
    fails = (
        "from infra.roles import run_role\nfrom rft.config import Config\nfrom rft.errors import PolicyError\n"
        "def run(config, stop): raise PolicyError('no tokenizer in model/')\n"
        "raise SystemExit(run_role('explorer', Config(), run))"
    )
    run = launched({"conductor": FOREVER, "explorer-0": fails})
    assert run.end() == 1
    assert run.text.count("restart ") == 1
    assert "failed: explorer-0 failed twice with the same error" in run.text
    assert "PolicyError: no tokenizer in model/" in run.text
    assert "Traceback" not in run.text
    assert json.loads((run.path / "exits" / "explorer-0.json").read_text())["error"] == "PolicyError"


def test_what_a_role_warned_of_and_what_ended_it_are_in_the_last_lines_and_in_the_report(launched):
    hopeless = (
        "import logging, sys\nfrom pathlib import Path\nfrom infra.roles import run_role\n"
        "from rft.config_sources import load_config\nfrom rft.errors import StarvationError\n"
        "def run(config, stop):\n"
        "    for number in range(300): logging.getLogger('rft').warning('group %d has no reward', number)\n"
        "    logging.getLogger('kafka.conn').error('closing socket')\n"
        "    raise StarvationError('nothing could be trained: [red]why[/red]')\n"
        "raise SystemExit(run_role('conductor', load_config(Path(sys.argv[1])), run))"
    )
    run = launched({"conductor": hopeless, "explorer-0": POLITE})
    assert run.end(60) == 1
    cause = "conductor: StarvationError: nothing could be trained: [red]why[/red]"
    lines = run.text.splitlines()
    assert lines.count(f"failed: {cause}") == 1
    assert lines.count("warning, conductor: group 299 has no reward (300 times)") == 2  # at once, and at the end
    assert "last lines" not in run.text
    assert "closing socket" not in run.text
    report = json.loads((run.path / "report.json").read_text())
    assert (report["outcome"], report["cause"]) == ("failed", cause)
    assert ("warning", 300) in [(note["level"], note["count"]) for note in report["notes"]]
    assert json.loads((run.path / "launches.jsonl").read_text())["reason"] == cause


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_interrupt_stops_everything_cleanly(launched, number):
    run = launched({"conductor": POLITE, "explorer-0": POLITE})
    children = run.wait_for_children(3)
    run.wait_for_log("conductor", "ready")
    run.wait_for_log("explorer-0", "ready")
    run.process.send_signal(number)
    assert run.end() == 130
    assert_gone(children)
    for name in ("conductor", "explorer-0"):
        assert "clean" in (run.path / "logs" / f"{name}.log").read_text()


def test_a_second_interrupt_kills_at_once(launched):
    run = launched({"conductor": STUBBORN, "explorer-0": STUBBORN})
    children = run.wait_for_children(3)
    run.until(lambda: (run.path / "logs" / "explorer-0.log").read_text() == "deaf\n", 5, "deaf role")
    run.process.send_signal(signal.SIGINT)
    run.wait_for("Ctrl-C again kills at once")
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    assert run.end(timeout_s=15) == 130
    assert_gone(children)


def test_a_role_that_ignores_sigterm_is_killed_after_the_timeout(launched):
    run = launched({"conductor": DONE_SOON, "explorer-0": STUBBORN}, "launcher.stop_timeout_s = 1\n")
    children = run.wait_for_children(3)
    assert run.end() == 0
    assert "did not stop within 1 s" in run.text
    assert_gone(children)


def test_no_process_outlives_a_launcher_that_is_killed(launched):
    run = launched({"conductor": STUBBORN, "trainer": STUBBORN, "explorer-0": STUBBORN})
    children = run.wait_for_children(4)
    run.process.kill()
    assert_gone(children)


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.4, 0.8, 1.5])
def test_an_interrupt_while_everything_starts_leaves_no_process(launched, delay_s):
    run = launched({"conductor": FOREVER, "explorer-0": FOREVER})
    run.wait_for("starting the embedded broker")
    seen: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + delay_s
    while time.monotonic() < deadline:
        seen |= {child.pid: child for child in run.children()}
        time.sleep(0.02)
    run.process.send_signal(signal.SIGINT)
    while run.process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen |= {child.pid: child for child in run.children()}
        time.sleep(0.02)
    assert run.end() == 130
    assert_gone(list(seen.values()))
    assert "Traceback" not in run.text


def test_a_closed_terminal_stops_the_run_cleanly(launched, tmp_path):
    ours, theirs = os.openpty()
    run = launched({"conductor": POLITE}, terminal=theirs)
    os.close(theirs)
    children = run.wait_for_children(2)
    run.wait_for_log("conductor", "ready")
    os.close(ours)
    run.process.send_signal(signal.SIGHUP)
    assert run.end() == 130
    assert_gone(children)
    assert "clean" in (run.path / "logs" / "conductor.log").read_text()


def test_an_embedded_broker_that_dies_ends_the_run_with_the_reason(launched):
    run = launched({"conductor": FOREVER, "explorer-0": FOREVER})
    children = run.wait_for_children(3)
    (broker,) = [child for child in children if "while True" not in " ".join(child.cmdline())]
    broker.kill()
    assert run.end() == 1
    assert_gone(children)
    assert "keeps its log in memory" in run.text
    report = json.loads((run.path / "report.json").read_text())
    assert (report["outcome"], report["complete"]) == ("failed", False)
    assert report["cause"] == "broker was killed by SIGKILL and cannot be restarted"


def test_two_launchers_do_not_share_a_run_folder(launched):
    first = launched({"conductor": FOREVER})
    first.wait_for_children(2)
    second = launched({"conductor": FOREVER})
    assert second.end() == 1
    assert f"another rft run (process {first.process.pid}) works in" in second.text


@pytest.mark.kafka
def test_a_run_on_a_kafka_node_survives_its_broker_and_its_launcher_and_ends_once(launched):
    """The node is restarted after a kill, the run is resumed after the launcher's; a finished run is not repeated."""
    settings = f'broker.kind = "kafka"\nbroker.kafka_home = "{require_kafka_home()}"\neval.tasks = 0\n'
    first = launched({"conductor": FOREVER, "explorer-0": FOREVER}, settings)
    first.wait_for("roles: ", timeout_s=120)
    children = first.wait_for_children(3)
    (broker,) = [child for child in children if "while True" not in " ".join(child.cmdline())]
    broker.kill()
    first.wait_for("broker was killed by SIGKILL; restart 1 of at most 5")
    first.until(lambda: len(first.children()) == 3, 20, "new broker")
    children = first.children()
    first.process.kill()
    assert_gone(children)

    second = launched({"conductor": FINAL_VERSION}, settings)
    assert second.end(timeout_s=60) == 0, second.text
    assert "resuming the run" in second.text
    assert json.loads((second.path / "report.json").read_text())["finished"] is True

    third = launched({"conductor": FOREVER}, settings)
    assert third.end() == 0
    assert "finished already" in third.text
    fourth = launched({"conductor": "pass"}, settings, "--fresh")
    assert fourth.end(timeout_s=60) == 0, fourth.text
    assert "an earlier run was moved to" in fourth.text
    assert json.loads((fourth.path / "report.json").read_text())["finished"] is False


def test_a_run_does_not_start_on_topics_that_hold_another_s(launched, embedded_broker):
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    settings = (
        f'broker.kind = "external"\nbroker.bootstrap_servers = "{embedded_broker}"\nlog.namespace = "{namespace}"\n'
    )
    first = launched({"conductor": A_TASK}, settings)
    assert first.end() == 0, first.text
    first.path.rename(first.path.with_name("elsewhere"))
    second = launched({"conductor": FOREVER}, settings)
    assert second.end() == 1
    assert f"the topics {namespace}.* hold 1 tasks of another run" in second.text
    assert "log.namespace" in second.text


def test_a_second_run_on_the_embedded_broker_moves_the_first_aside(launched):
    for _ in range(2):
        run = launched({"conductor": "pass"})
        assert run.end() == 0
    folders = sorted(path.name for path in run.path.parent.iterdir())
    assert len(folders) == 2
    assert folders[0] == "test"
    assert folders[1].startswith("test.2")
    assert "an earlier run was moved to" in run.text
