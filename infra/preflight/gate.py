"""Refuses to start what cannot work: one error with every fault."""

from __future__ import annotations

from collections.abc import Callable, Collection

from infra.launcher.role_set import role_arguments
from infra.preflight.contract import Role
from infra.preflight.process import find
from rft.config import Config
from rft.errors import ConfigError


def refuse_faults(config: Config, roles: Collection[Role], warn: Callable[[str], None]) -> None:
    """Make all checks of ``roles``. Call ``warn`` with each warning. Raises ConfigError with all failures."""
    failures = []
    for finding in find(config, roles):
        if finding.level == "fail":
            failures.append(finding.text)
        elif finding.level == "warn":
            warn(finding.text)
    if failures:
        raise ConfigError("\n".join(failures))


def roles_of_run(config: Config) -> set[Role]:
    """Return the roles that `rft run` starts and that have something to check."""
    names = {name.partition("-")[0] for name in role_arguments(config)}
    known: tuple[Role, ...] = (
        "conductor",
        "explorer",
        "gateway",
        "processor",
        "rewarder",
        "trainer",
        "importer",
        "tracker",
    )
    return {role for role in known if role in names}
