"""Programs as agents: their environment, their folder, their output and their end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from producers.explorer import command_guard
from producers.explorer.command_agent import CommandAgent, _exit_code
from producers.explorer.command_output import OutputTail, last_lines
from rft.config import RolloutConfig
from rft.errors import RolloutError
from rft.workflows.rollout import Rollout
from tests.producers.agent_running import roll
from tests.producers.chat_model import check_logprobs
from tests.producers.recording_policy import RecordingPolicy, check_rows

PROGRAM = str(Path(__file__).with_name("agent_program.py").relative_to(Path.cwd()))


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``[rollout]`` says to run the program; it leaves marks in ``tmp_path``."""
    monkeypatch.setenv("RFT_TEST_SECRET", "kept")
    monkeypatch.setenv("RFT_TEST_PASSED", "given")
    return {"command": ["python", PROGRAM], "command_env": {"PASSED": "$RFT_TEST_PASSED", "MARKS": str(tmp_path)}}


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while not all(map(gone, pids)):
        assert time.monotonic() < deadline, f"{pids} still run"
        time.sleep(0.05)


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"there is no {path.name}"
        time.sleep(0.05)


def hanging_pids(folder: Path) -> list[int]:
    """Return the ids of the program that hangs and of its child."""
    deadline = time.monotonic() + 120
    while not (found := [path for path in folder.iterdir() if path.name.isdigit() and path.read_text()]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(pid) for path in found for pid in (path.name, path.read_text())]


def test_a_program_runs_in_its_own_environment_and_folder(
    recording: RecordingPolicy, chat_model: Path, program: dict[str, Any]
) -> None:
    rollout = roll(recording, **program)
    assert isinstance(rollout, Rollout), rollout
    check_rows(recording, rollout)
    check_logprobs(chat_model, rollout.rows)
    answer, folder, sees = rollout.outcome.metadata["output"].splitlines()
    assert answer.startswith("answer "), "the color is kept"
    assert sees == "sees None given"
    assert folder.endswith("['scratch', 'task.json']")
    assert not Path(folder.split()[1]).exists()


def test_a_program_that_fails_says_why(recording: RecordingPolicy, program: dict[str, Any]) -> None:
    error = roll(recording, mood="fail", **program)
    assert isinstance(error, RolloutError)
    assert "ended with 7" in str(error)
    assert str(error).endswith("Traceback: it was the tool")


def test_a_program_that_is_killed_fails_its_try_and_the_next_goes_on(
    recording: RecordingPolicy, program: dict[str, Any]
) -> None:
    error = roll(recording, mood="die", **program)
    assert f"ended with {128 + signal.SIGKILL}" in str(error)
    Path(program["command_env"]["MARKS"], "died").unlink()
    rollout = roll(recording, mood="die", retries=1, **program)
    assert len(rollout.rows) == 1


def test_the_whole_group_of_a_program_ends_at_the_deadline(
    recording: RecordingPolicy, program: dict[str, Any], tmp_path: Path
) -> None:
    error = roll(recording, mood="hang", deadline_s=4.0, **program)
    assert "ran past its deadline of 4 s" in str(error)
    pids = hanging_pids(tmp_path)
    assert len(pids) == 2
    wait_until_gone(pids)


def test_a_program_that_leaves_children_behind_leaves_none(tmp_path: Path) -> None:
    """They hold its output open, too."""
    mark = tmp_path / "1"
    code = f"import subprocess; open({str(mark)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"
    guard = [sys.executable, "-I", "-S", command_guard.__file__, "1", sys.executable, "-c", code]
    with subprocess.Popen(guard, stdin=subprocess.PIPE) as process:
        assert process.wait(30) == 0
    wait_until_gone([int(mark.read_text())])


def test_a_process_outside_of_the_group_does_not_hold_a_program_that_has_ended(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = (
        "import subprocess; process = subprocess.Popen(['sleep', '60'], start_new_session=True); "
        f"open({str(mark)!r}, 'w').write(str(process.pid))"
    )

    async def end() -> int:
        command = [sys.executable, "-c", code]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(20):
            return await _exit_code(process)

    try:
        assert asyncio.run(end()) == 0
    finally:
        os.kill(int(mark.read_text()), signal.SIGKILL)


def test_a_program_may_print_until_its_grace_is_over(tmp_path: Path) -> None:
    """Nobody waits for it any more, but it must not fail while it ends because nobody reads."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    code = (
        "import pathlib, signal, sys, time\n"
        f"def end(*_): print('x' * 200_000, flush=True); pathlib.Path({str(ended)!r}).touch(); sys.exit()\n"
        f"signal.signal(signal.SIGTERM, end); pathlib.Path({str(begun)!r}).touch(); time.sleep(600)"
    )

    async def cancel() -> None:
        agent = CommandAgent(RolloutConfig(command=[sys.executable, "-c", code]))
        work = asyncio.create_task(agent._end(tmp_path, os.environ, OutputTail(100)))
        await asyncio.to_thread(wait_for_file, begun)
        work.cancel()
        await asyncio.to_thread(wait_for_file, ended)

    asyncio.run(cancel())


def test_an_output_is_kept_from_its_end_and_cleaned() -> None:
    tail = OutputTail(20)
    for _ in range(1000):
        tail.add(b"0123456789" * 5)
    tail.add("\x1b[1;31mred\x1b[0m\x07 é\r\nend".encode())
    assert tail.text().endswith("red\N{REPLACEMENT CHARACTER} é\nend")
    assert len(tail.text()) <= 20
    assert last_lines("a\n\n b \nc\n") == "a | b | c"


def test_no_output_is_kept_if_none_is_wanted(recording: RecordingPolicy, program: dict[str, Any]) -> None:
    assert roll(recording, command_output_kib=0, **program).outcome.metadata == {}
