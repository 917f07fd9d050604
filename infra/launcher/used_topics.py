"""Refuses to start a new run on the topics of another one."""

from __future__ import annotations

from infra.launcher.folder import RunFolderError
from infra.launcher.lag import LagMeter
from rft.config import Config
from rft.log.topics import ensure_topics


def refuse_used_topics(config: Config) -> None:
    """Raise RunFolderError if the topics hold another run's tasks, which a new run must not read."""
    ensure_topics(config)
    with LagMeter(config) as meter:
        totals = meter.totals()
    if totals["tasks"]:
        raise RunFolderError(
            f"the topics {config.log.namespace}.* hold {totals['tasks']} tasks of another run, of which "
            f"{config.run.path} holds nothing. Choose another --log.namespace, or delete the topics."
        )
