"""Starts a Python process for the code of others, and says how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from rft.plugins import FOLDERS_VARIABLE

TAIL_BYTES = 2000
"""How much of the end of a process's output is kept, for the error that says how it ended."""
TAIL_CHARS = 300
"""How much of it an error quotes."""


def start_module(module: str) -> subprocess.Popen[bytes]:
    """Start ``python -m module PID`` in a session of its own, with pipes for all its streams. PID is this process's."""
    return subprocess.Popen(
        # With -P, so that no file of the working directory can replace a library.
        [sys.executable, "-P", "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment_variables(),
        start_new_session=True,
        bufsize=0,
    )


def how_it_ended(code: int) -> str:
    """Return what an exit code of :mod:`subprocess` says."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def quote_last_line(output: bytes) -> str:
    """Return the last line of a process's output for an error; empty if there is none."""
    lines = output.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; its last output is {last[:TAIL_CHARS]!r}" if last else ""


def _environment_variables() -> dict[str, str]:
    """Return ours, without our settings, which may be secrets, and with the path on which this package is found."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("RFT_") or name == FOLDERS_VARIABLE
    }
    root = str(Path(__file__).parents[2])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [root, variables.get("PYTHONPATH")]))
    # There are many of these processes, and each would start threads for all cores.
    variables.setdefault("OMP_NUM_THREADS", "1")
    return variables
