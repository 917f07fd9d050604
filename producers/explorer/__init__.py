"""The explorer: rolls tasks out with the newest weights and publishes what the policy did."""

from __future__ import annotations

import threading

from rft.config import Config


def run(config: Config, stop: threading.Event) -> None:
    """See :func:`producers.explorer.shell.run`."""
    from producers.explorer import shell  # torch and a model's libraries: seconds that the pure parts do without

    shell.run(config, stop)
