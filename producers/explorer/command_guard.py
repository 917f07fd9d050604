"""Runs a program and ends its whole process group when the explorer wants it, or is gone.

The explorer starts this file as a script of its own, and holds the other end of its standard input. The end of that
pipe is the order to end the program: the kernel closes it, too, when the explorer is killed. The program gets SIGTERM,
and SIGKILL after the grace. What it leaves in its group when it ends by itself is killed. This script imports nothing
but the standard library, because it starts with each rollout.

Usage: command_guard.py GRACE_S PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

NOT_STARTED = 127
"""Exit code if the program cannot be started, as a shell has it."""


def main(grace_s: float, command: list[str]) -> int:
    """Run ``command`` and return its exit code: that of a shell, 128 + n, if signal n ended it."""
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    threading.Thread(target=_end_with_pipe, args=(program, grace_s), daemon=True).start()
    code = program.wait()
    _signal_group(program.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _end_with_pipe(program: subprocess.Popen[bytes], grace_s: float) -> None:
    while os.read(0, 1024):
        pass
    _signal_group(program.pid, signal.SIGTERM)
    threading.Event().wait(grace_s)
    _signal_group(program.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    # Only the explorer ends it. A handler, and not SIG_IGN, which the program would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    code = main(float(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    os._exit(code)  # the thread still reads the pipe
