"""Sets the terminal up for a view that is redrawn in place."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Iterator


@contextlib.contextmanager
def without_control_echo() -> Iterator[None]:
    """Keep the terminal from printing ``^C``: at the end of a full line it would move what is redrawn by a line."""
    try:
        descriptor = sys.stdin.fileno()
        # A job in the background that sets its terminal would be stopped.
        before = termios.tcgetattr(descriptor) if os.tcgetpgrp(descriptor) == os.getpgrp() else None
    except (OSError, ValueError, termios.error):  # stdin is no terminal, or closed
        before = None
    if before is None:
        yield
        return
    changed = [*before]
    changed[3] &= ~termios.ECHOCTL
    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        # The terminal may be gone, or the job in the background now.
        with contextlib.suppress(OSError, termios.error):
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
