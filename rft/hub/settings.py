"""Finds the hub's repositories that a configuration names, and puts commits and local folders in their places. Pure,
apart from a look at which folders exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rft.config import Config, PolicyConfig, Section
from rft.hub.repository import Repository, dataset_repository, model_repository


def named_repositories(config: Config) -> dict[str, Repository]:
    """Return the repositories that a run of ``config`` uses, by the setting that names them.

    Raises ConfigError for a name of another form.
    """
    models = {"policy.model": config.policy} | {
        f"trainers.{identity}.policy.model": config.of_trainer(identity).policy
        for identity, fields in config.trainers.items()
        if "model" in fields.policy
    }
    found: dict[str, Repository | None] = {name: model_repository(policy) for name, policy in models.items()}
    tasks = config.tasks
    sources = {"tasks.source": (tasks.source, tasks.revision)}
    for name, chosen in config.eval_sets.items():
        sources.setdefault(f"the source of {name}", (chosen.source, chosen.revision))
    for source in config.imports:
        if not source.manual or f"import:{source.name}" in (tasks.source, tasks.eval_source):
            sources[f"imports.{source.name}.path"] = (str(source.path), source.revision)
    found |= {name: dataset_repository(*source, name) for name, source in sources.items()}
    return {name: repository for name, repository in found.items() if repository is not None}


def with_commits(config: Config, commits: Mapping[str, str]) -> Config:
    """Return ``config`` with commits as revisions. They are by :attr:`Repository.key`; other revisions stay."""

    def commit(repository: Repository | None, revision: str | None) -> str | None:
        return commits.get(repository.key, revision) if repository else revision

    tasks, policy = config.tasks, config.policy
    main = dataset_repository(tasks.source, tasks.revision, "tasks.source")
    update: dict[str, Any] = {"policy": _changed(policy, revision=commit(model_repository(policy), policy.revision))}
    evaluated = tasks.eval_source and dataset_repository(tasks.eval_source, tasks.eval_revision, "tasks.eval_source")
    update["tasks"] = _changed(
        tasks,
        revision=commit(main, tasks.revision),
        # By default that of the same dataset.
        eval_revision=tasks.eval_revision
        if not evaluated or (tasks.eval_source == tasks.source and tasks.eval_revision is None)
        else commit(evaluated, tasks.eval_revision),
    )
    sets = {
        name: own
        if own.source is None or (own.source == tasks.source and own.revision is None)
        else _changed(own, revision=commit(dataset_repository(own.source, own.revision, name), own.revision))
        for name, own in config.eval.sets.items()
    }
    update["eval"] = _changed(config.eval, sets=sets)
    update["imports"] = [
        _changed(
            source, revision=commit(dataset_repository(str(source.path), source.revision, "path"), source.revision)
        )
        for source in config.imports
    ]
    trainers = {}
    for identity, overrides in config.trainers.items():
        own_policy = config.of_trainer(identity).policy
        revision = commit(model_repository(own_policy), own_policy.revision)
        named = "model" in overrides.policy and revision is not None
        trainers[identity] = _changed(overrides, policy=overrides.policy | ({"revision": revision} if named else {}))
    update["trainers"] = trainers
    return _changed(config, **update)


def with_model_folders(config: Config, folders: Mapping[Repository, Path]) -> Config:
    """Return ``config`` with local folders in place of the names of models."""

    def folder(policy: PolicyConfig) -> str:
        repository = model_repository(policy)
        return str(folders[repository]) if repository is not None and repository in folders else policy.model

    trainers = {
        identity: _changed(
            overrides,
            policy=overrides.policy
            | ({"model": folder(config.of_trainer(identity).policy)} if "model" in overrides.policy else {}),
        )
        for identity, overrides in config.trainers.items()
    }
    return _changed(config, policy=_changed(config.policy, model=folder(config.policy)), trainers=trainers)


S = TypeVar("S", bound=Section)


def _changed(section: S, **values: Any) -> S:
    """Return a copy of ``section`` with other values. A value that stays the same stays unset, if it was."""
    changed = {name: value for name, value in values.items() if value != getattr(section, name)}
    return section.model_copy(update=changed) if changed else section
