"""Ends a process in time, although a library may have left threads that do not end."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback

log = logging.getLogger("rft")

END_S = 3.0
"""How long Python may take to end a process after its work is done."""


def end_within(seconds: float, exit_code: int) -> None:
    """Let this process end by itself, and end it with ``exit_code`` after ``seconds`` if it has not.

    Python waits for each thread that is not a daemon. A client of a broker that is away may never end its own.
    """

    def end() -> None:
        time.sleep(seconds)
        frames = sys._current_frames()  # noqa: SLF001  # the only way to name what the threads wait for
        for thread in threading.enumerate():
            if thread.daemon or thread.ident not in frames:
                continue
            stack = "".join(traceback.format_stack(frames[thread.ident], 3)).strip()
            log.warning("thread %s has not ended; the process ends without it: %s", thread.name, stack)
        logging.shutdown()
        os._exit(exit_code)

    threading.Thread(target=end, name="process-end", daemon=True).start()
