"""Lists all checks, and runs those that the roles need."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from infra.preflight.algorithm import algorithms
from infra.preflight.contract import Check, Finding, Role
from infra.preflight.environment import variables
from infra.preflight.facts import Facts
from infra.preflight.gateway import gateway
from infra.preflight.imports import imports
from infra.preflight.lora import lora
from infra.preflight.model import model
from infra.preflight.priorities import priorities
from infra.preflight.prompts import prompts, tokenizer
from infra.preflight.rewarders import rewarders
from infra.preflight.rewards import rewards
from infra.preflight.rollout import group_size, rollout
from infra.preflight.run_folder import run_folder
from infra.preflight.sizes import sizes
from infra.preflight.tasks import tasks
from infra.preflight.trackers import trackers
from rft.config import Config
from rft.errors import RftError


def _roles(*roles: Role) -> frozenset[Role]:
    return frozenset(roles)


CHECKS: tuple[Check, ...] = (
    Check("the environment", variables, _roles("conductor", "explorer", "processor", "trainer", "importer", "eval")),
    Check("the run's folder", run_folder, _roles("conductor", "explorer", "processor", "trainer", "importer")),
    Check("the sizes", sizes, _roles("conductor", "trainer", "eval")),
    Check("the group size", group_size, _roles("conductor", "trainer")),
    Check("the model folder", model, _roles("explorer", "gateway", "trainer", "importer", "eval")),
    Check("the tokenizer", tokenizer, _roles("explorer", "gateway", "trainer", "importer", "eval")),
    Check("the LoRA targets", lora, _roles("trainer")),
    Check("the algorithm", algorithms, _roles("trainer")),
    Check("the gateway", gateway, _roles("gateway")),
    Check("the rewarders", rewarders, _roles("rewarder")),
    Check("the trackers", trackers, _roles("tracker")),
    Check("the imports", imports, _roles("importer")),
    Check("the rollouts", rollout, _roles("explorer", "eval")),
    Check("the priorities", priorities, _roles("processor", "trainer")),
    Check("the tasks", tasks, _roles("conductor", "eval")),
    Check("the prompts", prompts, _roles("conductor", "eval")),
    Check("the rewards", rewards, _roles("processor", "eval")),
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
    facts = Facts(config, roles)
    return [finding for check in checks_of(roles) for finding in findings_of(check, facts)]
