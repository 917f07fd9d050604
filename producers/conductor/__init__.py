"""The conductor: issues tasks at the pace that the trainer retires them, and has held-out tasks evaluated."""

from __future__ import annotations

import threading

from rft.config import Config


def run(config: Config, stop: threading.Event) -> None:
    """See :func:`producers.conductor.shell.run`."""
    from producers.conductor import shell  # task sources take a moment to import; the pure parts do without

    shell.run(config, stop)
