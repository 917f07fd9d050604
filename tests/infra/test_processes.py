"""Children end when asked, are killed when they ignore it, and end with their parent, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra.processes import last_lines, spawn, terminate


def wait_for(path: Path, timeout_s: float = 60) -> str:
    """Return the file's text as soon as there is some."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(f"nothing in {path}")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_environment_and_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    child = spawn(python("import os; print(os.environ['WORD'], flush=True); raise SystemExit(7)"), log, {"WORD": "hi"})
    assert child.wait(10) == 7
    assert log.read_text() == "hi\n"


def test_a_program_that_does_not_exist_says_so(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    assert spawn(["/no/such/program"], log).wait(10) == 127
    assert "cannot start /no/such/program: No such file or directory" in log.read_text()


def test_terminate_ends_a_child_that_heeds_sigterm(tmp_path: Path) -> None:
    child = spawn(["sleep", "100"], tmp_path / "log")
    started = time.monotonic()
    assert terminate(child, 10) == -signal.SIGTERM
    assert time.monotonic() - started < 5


def test_terminate_kills_a_child_that_does_not_and_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen(['sleep', '100']).pid, flush=True)\n"
        "time.sleep(100)"
    )
    child = spawn(python(code), log)
    grandchild = int(wait_for(log))
    assert terminate(child, 0.3) == -signal.SIGKILL
    assert gone(grandchild)


def test_terminate_of_a_dead_child_ends_the_processes_that_it_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn(python("import subprocess; print(subprocess.Popen(['sleep', '100']).pid, flush=True)"), log)
    grandchild = int(wait_for(log))
    child.wait(10)
    assert terminate(child, 1) == 0
    assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux promises it")
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_children_die_with_their_parent_however_it_dies(tmp_path: Path, sig: signal.Signals) -> None:
    code = (
        "import time; from pathlib import Path; from infra.processes import spawn\n"
        f"children = [spawn(['sleep', '100'], Path({str(tmp_path / 'log')!r})) for _ in range(3)]\n"
        "print(*(child.pid for child in children), flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 3
    assert all(is_alive(pid) for pid in children)
    os.kill(parent.pid, sig)
    parent.wait(10)
    parent.stdout.close()
    assert all(gone(pid) for pid in children)


def test_children_survive_the_thread_that_started_them(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(spawn(["sleep", "100"], tmp_path / "log")))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert started[0].poll() is None
    terminate(started[0], 5)


def test_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == []
    log.write_text("".join(f"line {n}\n" for n in range(100_000)))
    assert last_lines(log, 2) == ["line 99998", "line 99999"]
