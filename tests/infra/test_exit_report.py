"""The launcher learns from a file how a role ended, and takes no other file for it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.exit_report import ExitReport, read_exit_report, write_exit_report
from infra.launcher.role_processes import Command, Exit, RoleProcesses
from rft.errors import BrokerError, ConfigError, OutageError, PolicyError, RftError, TopicError
from schemas.errors import RegistryError, RegistryUnreachableError

ROLE = """
import os, signal, sys, threading, time
from infra.roles import run_role
from rft.config import Config
from rft.errors import BrokerError, FencedError, OutageError, PolicyError, StarvationError

def run(config, stop):
    {body}

sys.exit(run_role("explorer", Config(), run))
"""
REPORT = ExitReport("PolicyError", "no model", 1, False, 7, 12.5)


def end_of(processes: RoleProcesses, body: str) -> Exit:
    """Start the role ``explorer-0`` of ``processes``, whose work is ``body``, and return its end."""
    processes.spawn("explorer-0")
    deadline = time.monotonic() + 60
    while not (ended := processes.exits()):
        assert time.monotonic() < deadline, body
        time.sleep(0.02)
    return ended[0]


def roles(run_path: Path, body: str) -> RoleProcesses:
    command = Command((sys.executable, "-c", ROLE.format(body=body)), {"PYTHONPATH": str(Path(__file__).parents[2])})
    return RoleProcesses({"explorer-0": command}, run_path)


def roles_last_line(tmp_path: Path, body: str) -> str:
    """Return the last line in the log of a role whose work is ``body``."""
    processes = roles(tmp_path, body)
    end_of(processes, body)
    return processes.last_lines("explorer-0")[-1]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "exits" / "trainer.json"
    write_exit_report(path, REPORT)
    assert read_exit_report(path, pid=7) == REPORT
    assert [file.name for file in path.parent.iterdir()] == ["trainer.json"]
    assert str(REPORT) == "PolicyError: no model"


def test_the_report_of_another_process_is_not_read(tmp_path: Path) -> None:
    write_exit_report(tmp_path / "trainer.json", REPORT)
    assert read_exit_report(tmp_path / "trainer.json", pid=8) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"error": "PolicyError"}', "\x00", '{"unknown": 1}', "[[1, 2]]"]
)
def test_a_malformed_report_counts_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trainer.json"
    assert read_exit_report(path, pid=7) is None
    path.write_text(text)
    assert read_exit_report(path, pid=7) is None
    fields = {"error": 1, "message": [], "exit_code": 1, "transient": "no", "pid": 7, "time": 0}
    path.write_text(json.dumps(fields))
    assert read_exit_report(path, pid=7) is None
    path.write_bytes(b"\xff\xfe")
    assert read_exit_report(path, pid=7) is None


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (BrokerError("refused"), True),
        (OutageError("away"), True),
        (RegistryUnreachableError("no answer"), True),
        (TopicError("partitions is 2, expected 4"), False),
        (RegistryError("not authorized"), False),
        (PolicyError("no model"), False),
        (ConfigError("bad key"), False),
        (RftError("something"), False),
        (ZeroDivisionError("division by zero"), True),
    ],
)
def test_the_class_of_an_error_says_whether_a_restart_can_help(error: Exception, transient: bool) -> None:
    assert ExitReport.from_error(error, exit_code=1, pid=7, now=0.0).transient is transient


@pytest.mark.parametrize(
    ("body", "code", "fault", "told"),
    [
        ("raise PolicyError('no model\\nat all')", 1, "PolicyError at __main__:run:8", "PolicyError: no model at all"),
        ("raise FencedError('taken over')", 3, "FencedError at __main__:run:8", "FencedError: taken over"),
        ("raise StarvationError('8 groups')", 3, "StarvationError at __main__:run:8", "StarvationError: 8 groups"),
        ("raise BrokerError('refused')", 1, None, "BrokerError: refused"),
        ("1 / 0", 1, None, "ZeroDivisionError: division by zero"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, None, ""),
        ("os._exit(1)", 1, None, ""),
        ("return None", 0, None, ""),
    ],
)
def test_the_launcher_knows_the_error_and_the_class_and_place_of_a_lasting_one(
    tmp_path: Path, body: str, code: int, fault: str | None, told: str
) -> None:
    assert end_of(roles(tmp_path, body), body) == Exit("explorer-0", code, fault, error=told)


def test_the_launcher_knows_that_a_role_ended_because_the_broker_is_away(tmp_path: Path) -> None:
    body = "raise OutageError('connection refused')"
    assert end_of(roles(tmp_path, body), body) == Exit(
        "explorer-0", 1, None, outage=True, error="OutageError: connection refused"
    )


def test_a_fault_is_the_same_whatever_numbers_its_message_holds_and_another_one_elsewhere() -> None:
    def fault(make: Callable[[], Exception]) -> str:
        try:
            raise make()
        except Exception as error:
            return ExitReport.from_error(error, exit_code=1, pid=7, now=0.0).fault

    def elsewhere() -> Exception:
        raise PolicyError("8 tokens")

    assert fault(lambda: PolicyError("8 tokens")) == fault(lambda: PolicyError("9 tokens"))
    assert fault(lambda: PolicyError("8 tokens")) != fault(lambda: RftError("8 tokens"))
    assert fault(lambda: PolicyError("8 tokens")) != fault(elsewhere)


def test_a_bug_is_reported_with_its_class_and_text(tmp_path: Path) -> None:
    end_of(roles(tmp_path, "1 / 0"), "1 / 0")
    written = json.loads((tmp_path / "exits" / "explorer-0.json").read_text())
    assert (written["error"], written["message"]) == ("ZeroDivisionError", "division by zero")
    assert (written["exit_code"], written["transient"]) == (1, True)


def test_an_error_of_an_earlier_start_is_not_taken_for_that_of_the_last(tmp_path: Path) -> None:
    """The first start reports an error, the second is killed."""
    once = f"open({str(tmp_path / 'begun')!r}, 'x') and None"
    body = (
        f"\n    try: {once}\n    except FileExistsError: os.kill(os.getpid(), signal.SIGKILL)"
        "\n    raise PolicyError('no model')"
    )
    processes = roles(tmp_path, body)
    assert end_of(processes, body) == Exit(
        "explorer-0", 1, "PolicyError at __main__:run:11", error="PolicyError: no model"
    )
    assert end_of(processes, body) == Exit("explorer-0", -9, None)
    assert list((tmp_path / "exits").iterdir()) == []


def test_a_report_that_cannot_be_written_hides_neither_error_nor_exit_code(tmp_path: Path) -> None:
    (tmp_path / "exits").write_text("a file where the folder should be")
    body = "raise PolicyError('no model')"
    processes = roles(tmp_path, body)
    assert end_of(processes, body) == Exit("explorer-0", 1, None)
    lines = processes.last_lines("explorer-0")
    assert lines[-2].endswith(" ERROR explorer: PolicyError: no model")
    assert "explorer-0.json cannot be written: " in lines[-1]
    assert "Traceback" not in "\n".join(lines)


def test_a_role_s_children_do_not_inherit_the_file(tmp_path: Path) -> None:
    body = "raise PolicyError(os.environ.get('RFT_EXIT_FILE', 'none'))"
    assert roles_last_line(tmp_path, body).endswith("PolicyError: none")
