"""Code in the sandbox tries to get out, to stay, or to take everything. Each attempt ends within its limits."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rft.errors import ConfigError
from rft.rewards.sandbox import Limits, Outcome, check_sandbox, run_code

LIMITS = Limits(wall_s=20, cpu_s=2, memory_mb=256, processes=8, files_mb=4, output_kb=64)
SECRET = "secret-of-the-run"


SYSTEM_PYTHON = "/usr/bin/python3"


def fault(**how: Any) -> str | None:
    """Return why this machine cannot run code so; None if it can."""
    try:
        asyncio.run(check_sandbox(**how))
    except ConfigError as error:
        return str(error)
    return None


FAULT = fault()
LIMITED = {"isolated": False, "python": SYSTEM_PYTHON if Path(SYSTEM_PYTHON).exists() else None}
LIMITED_FAULT = fault(**LIMITED)
isolated = pytest.mark.skipif(FAULT is not None, reason=str(FAULT))


def run(code: str, limits: Limits = LIMITS, **how: Any) -> Outcome:
    return asyncio.run(run_code(code, limits=limits, **how))


def left_behind() -> list[psutil.Process]:
    """Return processes that run our code, or the jail."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):  # leaves out those that end meanwhile
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and (
            "main.py" in words or any("jail.py" in w for w in words)
        ):
            found.append(process)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> object:
    """No process outlives its run. Other runs on this machine may have some of their own."""
    before = {process.pid for process in left_behind()}
    yield
    deadline = time.monotonic() + 30  # less than what is left behind would sleep
    while left := [process for process in left_behind() if process.pid not in before]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@isolated
def test_it_runs_a_program_with_input() -> None:
    outcome = asyncio.run(run_code("import sys\nprint(sum(map(int, sys.stdin)))", "1\n2\n", LIMITS))
    assert (outcome.stdout, outcome.exit_code, outcome.cause, outcome.ok) == ("3\n", 0, None, True)


@isolated
def test_files_and_secrets_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees neither the run's folder nor system files, nor environment or arguments of a process of ours."""
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setenv("API_KEY", SECRET)
    names = ["/etc/shadow", "/etc/passwd", str(tmp_path / "secret"), os.getcwd(), "/root/.ssh", "/home", "/sys", "/run"]
    outcome = run(f"""
import os, glob
for name in {names!r}:
    print(os.path.exists(name), end=" ")
print()
for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline"):
    try:
        print(open(path).read())
    except OSError:
        pass
print(len([one for one in os.listdir("/proc") if one.isdigit()]), sorted(os.environ))
""")
    assert outcome.ok, outcome
    assert outcome.stdout.startswith("False " * len(names))
    assert SECRET not in outcome.stdout
    assert outcome.stdout.endswith("2 ['HOME', 'LANG', 'PATH', 'PYTHONHASHSEED']\n")


@isolated
def test_nothing_is_written_outside(tmp_path: Path) -> None:
    places = ["/x", "/usr/x", "/dev/x", "/proc/sys/kernel/hostname", "/bin/x", str(tmp_path / "x"), "/dev/shm/x"]
    outcome = run(f"""
import os
for place in {places!r}:
    try:
        open(place, "w").write("x")
        print("wrote", place)
    except OSError:
        pass
open("/work/x", "w").write("x"); open("/tmp/y", "w").write("y")
print(sorted(os.listdir("/work")))
""")
    assert outcome.stdout == "['main.py', 'x', 'y']\n", outcome
    assert list(tmp_path.iterdir()) == []


@isolated
def test_there_is_no_network() -> None:
    """A server on this machine is out of reach, and so is any other address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        outcome = run(f"""
import socket
for address in ("127.0.0.1", "1.1.1.1", "169.254.169.254"):
    try:
        socket.create_connection((address, {port}), 1)
        print("connected", address)
    except OSError:
        pass
try:
    socket.getaddrinfo("example.com", 80)
    print("resolved")
except OSError:
    pass
try:
    socket.socket(socket.AF_UNIX).connect("/run/docker.sock")
    print("docker")
except OSError:
    pass
""")
        with pytest.raises(TimeoutError):
            server.accept()
    assert (outcome.exit_code, outcome.stdout) == (0, ""), outcome


@isolated
def test_a_fork_bomb_stays_small() -> None:
    outcome = run("""
import os, time
made = 0
try:
    for _ in range(1000):
        if not os.fork():
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
""")
    assert outcome.ok, outcome
    assert 0 < int(outcome.stdout) < LIMITS.processes
    loud = run("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError: pass", Limits(wall_s=2))
    assert loud.cause in ("time", None)


@isolated
def test_a_memory_bomb_gets_an_error_and_many_small_ones_are_ended() -> None:
    assert "MemoryError" in run("x = bytearray(10**9)").stderr
    outcome = run("""
import os, time
for _ in range(4):
    if not os.fork():
        x = bytearray(100 * 1024**2)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
""")
    assert outcome.cause == "memory", outcome
    assert "No space left" in run("open('x', 'wb').write(bytes(3 << 20)); open('y', 'wb').write(bytes(3 << 20))").stderr
    assert run("import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))").exit_code == 1


@isolated
def test_endless_loops_and_output_are_ended() -> None:
    spinning = run("while True: pass", Limits(wall_s=30, cpu_s=1))
    assert (spinning.exit_code, spinning.cause) == (None, None)
    sleeping = run("import time; time.sleep(1e6)", Limits(wall_s=1))
    assert sleeping.cause == "time"
    assert sleeping.seconds < 15
    talking = run("import sys\nwhile True: sys.stderr.write('x' * 1000)")
    assert talking.cause == "output"
    assert len(talking.stderr) == LIMITS.output_kb * 1024


@isolated
def test_a_daemon_does_not_outlive_the_run() -> None:
    """It leaves the session, ignores signals, holds the pipes open and lets its parent end."""
    outcome = run("""
import os, signal, time
if not os.fork():
    os.setsid()
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    if not os.fork():
        while True:
            time.sleep(1)
    os._exit(0)
print("done")
""")
    assert outcome.stdout == "done\n"
    assert outcome.seconds < 15


@isolated
def test_it_can_kill_only_itself() -> None:
    """Signals reach neither the sandbox's first process nor any of ours."""
    outcome = run(f"""
import os, signal
for pid in (os.getppid(), 1, {os.getpid()}, {os.getppid()}):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
print("still here")
""")
    assert outcome.stdout == "still here\n", outcome
    assert run("import os, signal\nos.kill(-1, signal.SIGKILL)").stdout == ""


@isolated
def test_dangerous_calls_are_denied() -> None:
    """ptrace, mounts, new namespaces (by unshare, clone and clone3), raw devices, reboot, setuid to root."""
    outcome = run(
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def denied(result):
    return result == -1 and ctypes.get_errno() in (1, 38)
print(denied(libc.ptrace(0, 0, 0, 0)))
print(denied(libc.mount(b"tmpfs", b"/work", b"tmpfs", 0, None)))
print(denied(libc.umount2(b"/work", 2)))
print(denied(libc.unshare(0x10000000)))
print(denied(libc.syscall({clone}, 0x10000011, 0, 0, 0, 0)))
print(denied(libc.syscall(435, 0, 0)))
print(denied(libc.setns(0, 0)))
print(denied(libc.reboot(0)))
for call in (lambda: os.setuid(0), lambda: os.mknod("/work/d", 0o60666, os.makedev(8, 0)), lambda: os.chroot("/work")):
    try:
        call()
        print("allowed")
    except OSError:
        print(True)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs", "Seccomp:"))])
""".replace("{clone}", "56" if os.uname().machine == "x86_64" else "220")
    )
    lines = outcome.stdout.splitlines()
    assert lines[:-1] == ["True"] * 11, outcome
    assert lines[-1] == "['0000000000000000', '1', '2']"


@isolated
def test_results_cannot_be_forged_through_inherited_files() -> None:
    """Neither the report nor the specification is open in the program."""
    assert run("import os\nprint(sorted(map(int, os.listdir('/proc/self/fd')))[:3])").stdout == "[0, 1, 2]\n"
    outcome = run("""
import os
for fd in range(3, 100):
    try:
        os.write(fd, b"exit 0")
        print("wrote", fd)
    except OSError:
        pass
os._exit(7)
""")
    assert (outcome.exit_code, outcome.stdout) == (7, "")


@pytest.mark.skipif(LIMITED_FAULT is not None, reason=str(LIMITED_FAULT))
def test_with_limits_only_it_has_no_network_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is promised where namespaces are not available. Files of the system can be read."""
    monkeypatch.setenv("API_KEY", SECRET)
    outcome = run(
        """
import os, socket, time
try:
    socket.socket()
    print("socket")
except OSError:
    pass
print("API_KEY" in os.environ, os.listdir("."))
if not os.fork():
    os.setsid()
    if not os.fork():
        time.sleep(600)
    os._exit(0)
""",
        **LIMITED,
    )
    assert outcome.stdout == "False ['main.py']\n", outcome
    assert run("import time; time.sleep(600)", Limits(wall_s=1), **LIMITED).cause == "time"
