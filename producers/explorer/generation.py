"""Opens what serves an explorer's policy to gateways, if the configuration wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rft.config import Config
from rft.errors import ConfigError
from rft.policy.base import Policy

if TYPE_CHECKING:
    from producers.gateway.generation_server import GenerationServer


def open_generation_server(config: Config, policy: Policy, *, ready: Callable[[], bool]) -> GenerationServer | None:
    """Return the server, which listens and does not serve yet; None unless ``gateway.serve``.

    Raises ConfigError if the extra is not installed or the address cannot be used. ``ready`` says whether the policy
    holds weights that were announced.
    """
    if not config.gateway.serve:
        return None
    try:
        from producers.gateway.generation_server import GenerationServer
        from producers.gateway.secret import served_secret
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"gateway.serve needs the package {error.name!r}: pip install 'stream-rft[gateway]'"
        ) from error
    return GenerationServer(config.gateway, served_secret(config), policy, ready)
