"""While the live view is drawn, the terminal does not print ``^C``; afterwards it is as before."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import termios
from infra.launcher.terminal import without_control_echo
def echoes():
    return bool(termios.tcgetattr(0)[3] & termios.ECHOCTL)
print(echoes())
with without_control_echo():
    print(echoes())
print(echoes())
"""


def run(*arguments: str) -> list[bytes]:
    """Return the words that a Python process prints."""
    done = subprocess.run(
        [sys.executable, "-c", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_terminal_does_not_echo_control_characters_meanwhile() -> None:
    spawn = "import pty, sys; sys.exit(pty.spawn([sys.executable, '-c', sys.argv[1]]))"
    assert run(spawn, PROGRAM) == [b"True", b"False", b"True"]


def test_without_a_terminal_nothing_happens() -> None:
    assert run(PROGRAM.replace("termios.tcgetattr(0)[3] & termios.ECHOCTL", "0")) == [b"False"] * 3
