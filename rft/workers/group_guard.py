"""Ends the worker processes of a role when it is gone, however it ended.

The kernel's death signal reaches a worker's own process, but not those that it started. So one small process watches
the role, which writes it a line for each process group that begins (``+pid``) or has ended (``-pid``). When the role
ends, the guard kills the groups that are left. It imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys


def main() -> None:
    role = int(sys.argv[1])
    groups: set[int] = set()
    watched = [0]
    if hasattr(os, "pidfd_open"):
        # Not only standard input: a process that the role forked may hold the other end of it open.
        with contextlib.suppress(ProcessLookupError):
            watched.append(os.pidfd_open(role))
    os.set_blocking(0, False)
    rest = b""
    while True:
        ready, _, _ = select.select(watched, [], [])
        try:
            read = os.read(0, 65536)
        except BlockingIOError:
            read = b""
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
        if not read and ready:
            break
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
