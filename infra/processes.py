"""Starts child processes that cannot outlive us, and finds loopback ports for them.

Each child has a session of its own, and the kernel kills it when we die. Only Linux gives that promise
(PR_SET_PDEATHSIG). Elsewhere children end with :func:`terminate`, but survive a ``kill -9`` of their parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOST = "127.0.0.1"
"""The only address on which our own servers listen."""

# The signal comes when the *thread* that forked ends, not when its process does, so one thread that lives as
# long as the process does all forking. The child arms itself after exec, in a fresh interpreter: code between
# fork and exec (preexec_fn) can deadlock in a process with threads.
_FORKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")
_ARM = """
import os, sys
parent, sig, args = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
if sys.platform == "linux":
    import ctypes
    if ctypes.CDLL(None, use_errno=True).prctl(1, sig, 0, 0, 0) != 0:
        sys.exit("prctl(PR_SET_PDEATHSIG) failed: " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:
    sys.exit("the parent died before its child started")
try:
    os.execvp(args[0], args)
except OSError as error:
    print(f"cannot start {args[0]}: {error.strerror}", file=sys.stderr)
    sys.exit(127)
"""


def spawn(
    args: Sequence[str | Path],
    log_path: Path,
    env: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start ``args`` in a new session, without stdin, and append its output to ``log_path``.

    ``env`` is the whole environment (``os.environ`` if None). When this process ends, however it ends, the
    child gets ``death_signal``. A program that cannot be executed ends with 127 and its reason in the log.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)

    def fork() -> subprocess.Popen[bytes]:
        arm = [sys.executable, "-I", "-S", "-c", _ARM, str(os.getpid()), str(int(death_signal))]
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [*arm, *map(str, args)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    return _FORKER.submit(fork).result()


def terminate(proc: subprocess.Popen[bytes], timeout: float) -> int:
    """End the child's whole session and return its exit code: SIGTERM, then SIGKILL after ``timeout`` seconds."""
    _signal_group(proc, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        proc.wait(timeout)
    _signal_group(proc, signal.SIGKILL, even_if_dead=True)
    return proc.wait()


def _signal_group(proc: subprocess.Popen[bytes], sig: signal.Signals, *, even_if_dead: bool = False) -> None:
    """Signal the child's process group. The group of a dead child may still hold its own children: ``even_if_dead``."""
    if proc.poll() is not None and not even_if_dead:
        return
    try:
        os.killpg(proc.pid, sig)
    except ProcessLookupError:
        return


def last_lines(path: Path, count: int = 20) -> list[str]:
    """Return the last lines of a log, read from its last 64 KiB; empty if there is none."""
    if not path.exists():
        return []
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - 65536))
        return log.read().decode("utf-8", "replace").splitlines()[-count:]


def free_port() -> int:
    """Return a loopback port on which nothing listens now."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def is_free(port: int) -> bool:
    """Return whether a server can listen on this loopback port. Lingering connections of an earlier one are fine."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
    return True
