"""Lists the roles of a run: how each is started, and what its end means."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from infra.launcher.folder import role_environment
from infra.launcher.role_processes import Command
from infra.launcher.supervisor import Limits, OnSuccess, Role
from rft.config import Config

BROKER = "broker"
ARCHIVER = "archiver"
TRACKER = "tracker"
GATEWAY = "gateway"
_ON_SUCCESS: dict[str, OnSuccess] = {"conductor": "end_run", "trainer": "leave", "importer": "leave"}
MakeCommands = Callable[[Config, Path], dict[str, Command]]


def role_commands(config: Config, config_file: Path) -> dict[str, Command]:
    """Return the command ``rft <role> <config file>`` of each process, by its name."""
    # -P: a file in the working directory must not shadow a library.
    start = (sys.executable, "-P", "-m", "infra.cli")
    return {
        name: Command((*start, *arguments, str(config_file)), role_environment(config, os.environ, name))
        for name, arguments in role_arguments(config).items()
    }


def role_arguments(config: Config) -> dict[str, tuple[str, ...]]:
    """Return the arguments of ``rft`` that start each role's process, by its name. The mode decides which there are."""
    mode = config.run.mode
    found: dict[str, tuple[str, ...]] = {}
    if config.archiving:
        found[ARCHIVER] = ("archiver",)
    if config.trackers.use:
        found[TRACKER] = ("tracker",)
    if mode != "eval" and any(not source.manual for source in config.imports):
        found["importer"] = ("importer",)
    if mode in ("online", "train"):
        found |= {"trainer": ("trainer",)}
        found |= {f"trainer-{key}": ("trainer", "--identity", key) for key in config.trainers}
    issues_tasks = mode != "train" or bool(config.eval_sets)
    if issues_tasks or config.gateway.serve:
        found |= {f"explorer-{index}": ("explorer",) for index in range(config.launcher.explorers)}
    if config.gateway.serve:
        found[GATEWAY] = ("gateway",)
    found |= {f"processor-{index}": ("processor",) for index in range(config.launcher.processors)}
    if mode != "eval":
        found |= {
            f"rewarder-{name}-{index}": ("rewarder", "--name", name)
            for name, rewarder in config.rewarders.items()
            for index in range(rewarder.processes)
        }
    return found | ({"conductor": ("conductor",)} if issues_tasks else {})


def supervised(config: Config, names: list[str], *, own_broker: bool) -> list[Role]:
    """Return the roles for the supervisor.

    The run ends well when the conductor and the further trainers have; the main trainer may end before. Without a
    conductor, the main trainer's success is the run's.
    """
    on_success = _ON_SUCCESS | {f"trainer-{key}": "end_run" for key in config.trainers}
    if "conductor" not in names:
        on_success["trainer"] = "end_run"
    roles = [
        Role(
            name,
            on_success=on_success.get(name, "restart"),
            stops_last=name in (ARCHIVER, TRACKER),
            essential=name != TRACKER,
        )
        for name in names
    ]
    if own_broker:
        # The embedded broker loses its log when it ends; a Kafka node comes back with its data.
        roles.insert(0, Role(BROKER, restartable=config.broker.kind == "kafka", outlives_roles=True, state="running"))
    return roles


def limits(config: Config) -> Limits:
    """Return the supervisor's limits."""
    launcher = config.launcher
    return Limits(
        launcher.restart_limit,
        launcher.restart_window_s,
        launcher.backoff_s,
        launcher.stop_timeout_s,
        config.broker.outage_s,
    )
