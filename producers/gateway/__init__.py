"""Serves the policy to agents over HTTP: OpenAI's and Anthropic's protocols over sessions that keep exact tokens."""

from __future__ import annotations

import threading

from rft.config import Config
from rft.errors import ConfigError


def run(config: Config, stop: threading.Event) -> None:
    """Run the gateway as a role: see :func:`producers.gateway.role.run`."""
    try:
        from producers.gateway import role  # needs the extra `gateway`
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"gateway.serve needs the package {error.name!r}: pip install 'stream-rft[gateway]'"
        ) from error
    role.run(config, stop)
