"""The conductor: issues tasks at the pace that the trainer retires them, and has held-out tasks evaluated."""

from __future__ import annotations

import threading

from rft.config import Config


def run(config: Config, stop: threading.Event) -> None:
    """Run the conductor: see :func:`producers.conductor.shell.run`."""
    from producers.conductor import shell  # task sources are slow to import; the pure parts do not need them

    shell.run(config, stop)
