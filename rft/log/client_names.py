"""Names the Kafka clients of a process.

Kafka's quotas and request logs match whole client ids, so all clients and all processes of a role share one:
``<namespace>.<role>``. Clients of a command have ``<namespace>.<command>``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rft.config import Config

_process: list[str] = []
"""Role or command of this process; empty in another program, whose clients choose their names."""


def name_clients(name: str) -> None:
    """From now on, let all Kafka clients of this process have the name of a role or command."""
    _process[:] = [name]


def client_name(config: Config, purpose: str) -> str:
    """Return the client id under which the cluster knows a client."""
    return f"{config.log.namespace}.{(_process or [purpose])[0]}"
