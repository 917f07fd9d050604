"""Runs code in the sandbox, reads what it writes up to a limit, and ends it in time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from rft.errors import ConfigError, RewardError
from rft.rewards.sandbox.limits import Cause, Limits, Outcome
from rft.workers.output_pipe import OutputPipe

JAIL = Path(__file__).with_name("jail.py")
END_S = 5.0
"""How long the pipes of a program that has ended may stay open: what it left behind may hold them."""
MIB = 1024 * 1024
OWN_PROCESSES = 2
"""Of the sandbox itself; the kernel counts them as the code's."""
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/work", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}


async def run_code(
    code: str,
    stdin: str = "",
    limits: Limits | None = None,
    *,
    isolated: bool = True,
    read_only: Sequence[str] = (),
    python: str | None = None,
) -> Outcome:
    """Run Python code as a program, and return how it ended.

    Args:
        stdin: What it reads from standard input.
        isolated: Whether to cut it off by namespaces. Without, only limits and a filter of system calls apply.
        read_only: Folders that it may read, beside Python's and the system's; they are on its path of modules.
        python: The interpreter, by default the one of this process.

    Raises RewardError if the sandbox cannot be built.
    """
    limits = limits or Limits()
    folder = None if isolated else tempfile.mkdtemp(prefix="rft-code-")
    try:
        if folder is not None:
            os.chmod(folder, 0o777)  # the code runs as nobody if we are root
        return await _run(_spec(code, limits, isolated, read_only, python or sys.executable, folder), stdin, limits)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


async def check_sandbox(*, isolated: bool = True, read_only: Sequence[str] = (), python: str | None = None) -> None:
    """Run a program in the sandbox. Raises ConfigError with the cause if this machine does not allow it."""
    try:
        outcome = await run_code("print(6 * 7)", isolated=isolated, read_only=read_only, python=python)
    except RewardError as error:
        raise ConfigError(
            f"code cannot be isolated on this machine: {error}. It needs Linux and user namespaces for this user "
            "(sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_"
            "unprivileged_userns; in Docker: --security-opt seccomp=unconfined). Or set options.isolation = 'limits', "
            "which does not keep code from reading this user's files"
        ) from error
    if outcome.stdout != "42\n":
        raise ConfigError(
            f"code does not run in the sandbox: {outcome.stderr.strip() or outcome}. Name an interpreter that every "
            "user may read in options.python"
        )


def _spec(
    code: str, limits: Limits, isolated: bool, read_only: Sequence[str], python: str, folder: str | None
) -> dict[str, Any]:
    system = [path for path in ("/usr", sys.base_prefix, *read_only) if os.path.isdir(path)]
    outermost = [path for path in system if not any(path.startswith(f"{other}/") for other in system)]
    rlimits = {
        "RLIMIT_CPU": limits.cpu_s,
        "RLIMIT_AS": limits.memory_mb * MIB,
        "RLIMIT_FSIZE": limits.files_mb * MIB,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }
    if isolated or os.geteuid() == 0:
        # Otherwise all other processes of this user would count.
        rlimits["RLIMIT_NPROC"] = limits.processes + (OWN_PROCESSES if isolated else 0)
    environment = ENVIRONMENT | {"HOME": folder or "/work"}
    if read_only:
        environment["PYTHONPATH"] = os.pathsep.join(read_only)
    return {
        "isolated": isolated,
        "folder": folder,
        "code": code.encode("utf-8", "replace").decode(),
        "argv": [os.path.realpath(python), "-P", "-s", "-u", "main.py"],
        "environment": environment,
        "read_only": list(dict.fromkeys(outermost)),
        "rlimits": rlimits,
        "memory_mb": limits.memory_mb,
        "files_mb": limits.files_mb,
    }


async def _run(spec: dict[str, Any], stdin: str, limits: Limits) -> Outcome:
    # Files in memory: no pipe has to be fed while the program runs.
    spec_fd, stdin_fd = (_memory_file(text) for text in (json.dumps(spec), stdin))
    report_fd, report_end = os.pipe()
    outputs = [_Output(limits.output_kb * 1024), _Output(limits.output_kb * 1024)]
    began = time.monotonic()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(JAIL), str(spec_fd), str(report_end),
                stdin=stdin_fd, stdout=outputs[0].pipe.write_fd, stderr=outputs[1].pipe.write_fd,
                pass_fds=(spec_fd, report_end), env={}, cwd="/",
            )  # fmt: skip
        finally:
            for fd in (spec_fd, stdin_fd, report_end):
                os.close(fd)
            for output in outputs:
                output.pipe.started()
        try:
            return await _watch(process, report_fd, outputs, limits, began)
        finally:
            _end(process, spec)
            await process.wait()
    finally:
        for output in outputs:
            output.pipe.close()
        os.close(report_fd)


class _Output:
    """Reads a pipe up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.pipe = OutputPipe()
        self.text = bytearray()
        self.full = False

    async def read(self) -> None:
        """Read until the end of the pipe or the limit."""
        async for part in self.pipe.read():
            self.text += part[: self._limit - len(self.text)]
            if len(self.text) >= self._limit:
                self.full = True
                return


async def _watch(
    process: asyncio.subprocess.Process, report_fd: int, outputs: Sequence[_Output], limits: Limits, began: float
) -> Outcome:
    """Read the output and the report until the program ends or exceeds a limit."""
    ended = asyncio.ensure_future(process.wait())
    readers = [asyncio.ensure_future(output.read()) for output in outputs]
    deadline = time.monotonic() + limits.wall_s
    try:
        waiting: set[asyncio.Future[Any]] = {ended, *readers}
        while not ended.done() and not any(output.full for output in outputs) and time.monotonic() < deadline:
            left_s = max(deadline - time.monotonic(), 0.0)
            _, waiting = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        late = not ended.done()
        if not late:
            # Whatever is left of the program cannot hold the pipes open for long: it ends with the sandbox.
            await asyncio.wait(readers, timeout=END_S)
    finally:
        for task in (ended, *readers):
            task.cancel()
    cause: Cause | None = "output" if any(output.full for output in outputs) else "time" if late else None
    kind, _, value = ("" if late else _read_report(report_fd)).partition(" ")
    if kind == "setup" or (cause is None and kind not in ("exit", "signal", "memory")):
        raise RewardError(f"the sandbox cannot be built: {value or kind or 'its process has ended'}")
    return Outcome(
        int(value) if kind == "exit" and cause is None else None,
        outputs[0].text.decode("utf-8", "replace"),
        outputs[1].text.decode("utf-8", "replace"),
        "memory" if kind == "memory" else cause,
        time.monotonic() - began,
    )


def _end(process: asyncio.subprocess.Process, spec: dict[str, Any]) -> None:
    """End the sandbox. With namespaces, the kernel ends all that is in it with its first process."""
    if process.returncode is not None:
        return
    with suppress(psutil.Error):
        left = [] if spec["isolated"] else psutil.Process(process.pid).children(recursive=True)
        for one in left:
            with suppress(psutil.Error):
                one.kill()
    with suppress(ProcessLookupError):
        process.kill()


def _memory_file(text: str) -> int:
    fd = os.memfd_create("rft-code", 0)
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "replace"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _read_report(fd: int) -> str:
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 4096).decode("utf-8", "replace")
    except BlockingIOError:
        return ""
