"""Downloads what a configuration names on the Hugging Face hub: before a run, at a role's start, for a command.

Nothing here imports the hub's client unless the configuration names a repository.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from rft.config import Config
from rft.errors import HubError
from rft.hub.repository import Repository, dataset_repository
from rft.hub.revisions import record_revisions, recorded_revisions
from rft.hub.settings import named_repositories, with_commits, with_model_folders
from rft.telemetry.activity import role_activity

if TYPE_CHECKING:
    from rft.hub.files import Plan

LOG_EVERY_S = 10.0
_WITHOUT_MODEL = ("processor", "archiver", "tracker")
"""Roles that load neither the model nor its tokenizer."""

log = logging.getLogger("rft")


def pinned(config: Config, *, resumed: bool = True) -> Config:
    """Return ``config`` with the commits of all repositories that it names as their revisions.

    A commit that the run in ``run.folder`` has noted is used again, unless ``resumed`` is false. Those of earlier
    stages are used in any case. The hub is asked for the others. Raises HubError, ConfigError.
    """
    repositories = [found for found in named_repositories(config).values() if not found.pinned]
    if not repositories:
        return config
    from rft.hub.client import look_up

    commits = recorded_revisions(config.run.path, resumed=resumed)
    for repository in repositories:
        if repository.key not in commits:
            commits[repository.key] = look_up(repository).repository.revision
    return with_commits(config, commits)


def note_revisions(config: Config, pinned_config: Config) -> None:
    """Write the commits that ``pinned_config`` has in place of revisions of ``config`` into the run's folder.

    Raises HubError if it cannot be written.
    """
    now = named_repositories(pinned_config)
    commits = {
        repository.key: now[setting].revision
        for setting, repository in named_repositories(config).items()
        if not repository.pinned
    }
    try:
        record_revisions(config.run.path, commits)
    except OSError as error:
        raise HubError(
            f"{config.run.path} cannot be written: {error.strerror}. The commits of {', '.join(commits)} must be noted "
            "there: free some space, or set the revisions to commits."
        ) from error


def plans(
    config: Config, *, with_weights: bool = True, tasks: bool = True, imports: bool = True
) -> Iterator[tuple[str, Plan]]:
    """Yield (setting, files that are needed) of each repository that ``config`` names, without downloading them.

    ``tasks`` and ``imports`` say whether their datasets are included. Raises HubError, ConfigError.
    """
    repositories = named_repositories(config)
    if not repositories:
        return
    from rft.hub.files import plan_dataset, plan_model

    for setting, repository in repositories.items():
        if repository.kind == "model":
            yield setting, plan_model(repository, with_weights=with_weights)
    splits: list[tuple[str, Repository | None, str | None, str | None]] = []
    main = config.tasks
    sources = [("tasks.source", main.source, main.revision, main.options)]
    sources += [(f"held-out set {name}", s.source, s.revision, s.options) for name, s in config.eval_sets.items()]
    for setting, source, revision, options in sources if tasks else ():
        found = dataset_repository(source, revision, setting)
        splits.append((setting, found, options.get("config"), options.get("split")))
    for entry in config.imports if imports else ():
        setting = f"imports.{entry.name}.path"
        if setting in repositories:
            splits.append((setting, repositories[setting], entry.config, entry.subset))
    seen = set()
    for setting, found, name, split in splits:
        if found is not None and (found, name, split) not in seen:
            seen.add((found, name, split))
            yield setting, plan_dataset(found, name, split)


def fetch_all(
    config: Config, console: Console, *, with_weights: bool = True, tasks: bool = True, imports: bool = True
) -> Config:
    """Download all that ``config`` names, with progress on ``console``; models are folders in what is returned.

    Raises HubError, ConfigError.
    """
    found = list(plans(config, with_weights=with_weights, tasks=tasks, imports=imports))
    if not found:
        return config
    from infra.commands.stages import Stages
    from rft.hub.files import fetch

    folders: dict[Repository, Path] = {}
    with Stages(console, sizes=True) as stages:
        for setting, plan in found:
            begin = stages(f"{setting}: {plan}") if plan.size else None
            folder = fetch(plan, begin) if begin else fetch(plan)
            folders[plan.listing.repository] = folder
    return with_model_folders(config, _by_name(config, folders))


def for_role(role: str, config: Config, stop: threading.Event) -> Config:
    """Return ``config`` as ``role`` needs it: revisions are commits, and models are folders.

    The launcher has downloaded all of it already. On another machine this downloads it, and logs how far it is.
    Raises HubError, ConfigError.
    """
    if role in _WITHOUT_MODEL or not named_repositories(config):
        return config
    pinned_config = pinned(config)
    if pinned_config != config:
        for setting, repository in named_repositories(pinned_config).items():
            log.info("%s is %s at commit %s", setting, repository.name, repository.revision)
        note_revisions(config, pinned_config)
    with_weights = _reads_weights(role, config)
    from rft.hub.files import cached_model, fetch, plan_model

    folders: dict[Repository, Path] = {}
    for repository in set(named_repositories(pinned_config).values()):
        if repository.kind == "model":
            folder = cached_model(repository, with_weights=with_weights)
            if folder is None:
                activity = role_activity()
                activity.works("downloads %s", repository)
                folder = fetch(plan_model(repository, with_weights=with_weights), _logged(repository), stop)
            folders[repository] = folder
    return with_model_folders(pinned_config, folders)


def _by_name(config: Config, folders: dict[Repository, Path]) -> dict[Repository, Path]:
    """Return the folders by the repositories as ``config`` names them, whose revision need not be a commit."""
    from rft.hub.client import look_up

    found = {}
    for repository in named_repositories(config).values():
        at = repository if repository.pinned else look_up(repository).repository
        if at in folders:
            found[repository] = folders[at]
    return found


def _reads_weights(role: str, config: Config) -> bool:
    match role:
        case "trainer":
            return True
        case "explorer":
            return config.policy.engine != "openai"
        case "conductor":
            return config.run.mode in ("explore", "eval")
    return False  # the tokenizer is enough


def _logged(repository: Repository) -> Callable[[int, int], None]:
    """Return a function that logs how far a download is, and counts as the role's progress."""
    activity = role_activity()
    shown = [time.monotonic()]

    def report(done: int, total: int) -> None:
        activity.progressed()
        if time.monotonic() - shown[0] >= LOG_EVERY_S:
            shown[0] = time.monotonic()
            log.info("downloads %s: %.1f of %.1f GB", repository, done / 1e9, total / 1e9)

    return report
