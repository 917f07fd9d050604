"""Runs the checks in a child process, which a user's module may block, end or write from without harm."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from infra.preflight.contract import Finding, Role
from rft.config import Config
from rft.errors import ConfigError

LIMIT_S = 120.0
"""How long all checks may take. Only a user's module takes more than a few seconds: it may import torch and vLLM from a
slow disk, and it may hang."""
WRONG_CONFIGURATION = ConfigError.exit_code
_STACK_S = 0.5
"""How long the child gets for writing where it stands."""
_ROOT = str(Path(__file__).parents[2])
_PACKAGES = tuple(f"{_ROOT}/{package}/" for package in ("infra", "consumers", "producers", "rft", "schemas"))


def find(config: Config, roles: Collection[Role], *, limit_s: float = LIMIT_S) -> Iterator[Finding]:
    """Make all checks of ``roles`` and yield each finding as it comes.

    If the child ends too early or does not end within ``limit_s``, the last finding names the check and the place.
    """
    request = {"config": config.model_dump(mode="json", exclude_unset=True), "roles": sorted(roles)}
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "infra.preflight.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([_ROOT, *_python_path()])},
            start_new_session=True,
        )
        try:
            yield from _read(child, json.dumps(request).encode(), output, time.monotonic() + limit_s, limit_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _read(
    child: subprocess.Popen[bytes], request: bytes, output: IO[bytes], deadline: float, limit_s: float
) -> Iterator[Finding]:
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(request)
        child.stdin.close()
    subject = "the configuration"
    for line in _lines(child.stdout.fileno(), deadline):
        if line is None:
            child.send_signal(signal.SIGUSR1)
            time.sleep(_STACK_S)
            where = _place(_tail(output))
            yield Finding(
                "fail",
                f"the check of {subject} has not ended after {limit_s:g} s{f': it stands at {where}' if where else ''}",
                "make the module import without waiting, or run it outside of the functions that the configuration "
                "names",
                WRONG_CONFIGURATION,
            )
            return
        message: dict[str, Any] = json.loads(line)
        if message.get("done"):
            return
        if "subject" in message:
            subject = message["subject"]
        else:
            yield Finding(message["level"], message["what"], message["advice"], WRONG_CONFIGURATION)
    code = child.wait()
    said = " ".join(_tail(output).strip().splitlines()[-1:])
    yield Finding(
        "fail",
        f"the check of {subject} ended its process ({_ending(code)}){f': {said}' if said else ''}",
        "remove what ends or crashes the process from your modules: they run within the roles",
        WRONG_CONFIGURATION,
    )


def _lines(descriptor: int, deadline: float) -> Iterator[bytes | None]:
    """Yield whole lines until the other end closes; None, once and last, at the deadline."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                yield None
                return
            data = os.read(descriptor, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from lines


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 16384))
    return output.read().decode("utf-8", "replace")


def _place(stack: str) -> str | None:
    """Return file and line of the innermost frame in faulthandler's ``stack`` that is neither ours nor a library's."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', stack.rpartition("most recent call first")[2])
    of_user = [frame for frame in frames if not frame[0].startswith((*_PACKAGES, sys.prefix, sys.base_prefix, "<"))]
    return f"{of_user[0][0]}:{of_user[0][1]}" if of_user else None


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
