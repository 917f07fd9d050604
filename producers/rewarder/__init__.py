"""The rewarder: reads experiences in its own consumer group and publishes rewards; see ``docs/rewarders.md``."""

from __future__ import annotations

import threading

from rft.config import Config


def run(config: Config, stop: threading.Event) -> None:
    """Run the rewarder: see :func:`producers.rewarder.shell.run`."""
    from producers.rewarder import shell

    shell.run(config, stop)
