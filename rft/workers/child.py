"""Prepares a process that runs the code of others: its streams, its search path and its memory limit.

Standard input and output carry messages. The code sees neither: what it prints goes to standard error, and it reads
nothing.

The memory limit is RLIMIT_DATA, which the kernel enforces at once, on each process that is started: a look at the
resident size now and then would come too late for one that takes gigabytes in a second. RLIMIT_AS would count address
space, too, of which numerical libraries reserve far more than they use.
"""

from __future__ import annotations

import os
import resource
from typing import BinaryIO


def take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return private copies of standard input and output, and give the code others."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def limit_memory(size_bytes: int | None) -> None:
    """Let this process and each that it starts hold at most so much data; None: no limit. No core is dumped."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if size_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))
