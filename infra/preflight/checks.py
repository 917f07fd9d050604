"""Lists all checks, and runs those that the roles need."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from infra.preflight.algorithm import algorithms
from infra.preflight.contract import Check, Finding, Role
from infra.preflight.facts import Facts
from infra.preflight.gateway import gateway
from infra.preflight.model import model
from infra.preflight.rewarders import rewarders
from infra.preflight.trackers import trackers
from rft.config import Config
from rft.errors import RftError

EXPLORER: frozenset[Role] = frozenset({"explorer"})
TRAINER: frozenset[Role] = frozenset({"trainer"})
MODEL: frozenset[Role] = frozenset({"explorer", "gateway", "trainer", "eval"})

CHECKS: tuple[Check, ...] = (
    Check("the model folder", model, MODEL),
    Check("the algorithm", algorithms, TRAINER),
    Check("the gateway", gateway, frozenset({"gateway"})),
    Check("the rewarders", rewarders, frozenset({"rewarder"})),
    Check("the trackers", trackers, frozenset({"tracker"})),
)
"""In the order in which they are made and shown: what costs little comes first."""


def checks_of(roles: Collection[Role]) -> list[Check]:
    """Return the checks that at least one of ``roles`` needs."""
    return [check for check in CHECKS if not check.roles.isdisjoint(roles)]


def findings_of(check: Check, facts: Facts) -> Iterator[Finding]:
    """Make one check. An RftError that it raises is a finding, too."""
    try:
        yield from check.find(facts)
    except RftError as error:
        yield Finding("fail", str(error))


def find_all(config: Config, roles: Collection[Role]) -> list[Finding]:
    """Make all checks of ``roles`` in this process."""
    facts = Facts(config)
    return [finding for check in checks_of(roles) for finding in findings_of(check, facts)]
