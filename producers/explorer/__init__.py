"""The explorer: rolls tasks out with the newest weights and publishes the experiences."""

from __future__ import annotations

import threading

from rft.config import Config


def run(config: Config, stop: threading.Event) -> None:
    """Run the explorer: see :func:`producers.explorer.shell.run`."""
    from producers.explorer import shell  # torch takes seconds to import; the pure parts do not need it

    shell.run(config, stop)
