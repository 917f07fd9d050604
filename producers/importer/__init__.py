"""The importer: publishes files of tasks, demonstrations and preferences to the log, each row once."""

from __future__ import annotations

import threading

from rft.config import Config


def run(config: Config, stop: threading.Event) -> None:
    """Run the importer: see :func:`producers.importer.shell.run`."""
    from producers.importer import shell  # the tokenizer's library takes seconds to import

    shell.run(config, stop)
