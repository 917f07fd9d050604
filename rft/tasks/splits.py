"""Opens the configured sources, and keeps the held-out tasks out of training.

Two tasks are the same if their prompts are. The held-out tasks depend on the source and the set's size, never on
``run.seed``: a model that one run has trained can be evaluated by the next.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft.config import MAIN_SET, Config, EvalSet
from rft.errors import ConfigError
from rft.hub.repository import PREFIX, dataset_repository
from rft.plugins import resolve
from rft.tasks.base import TaskItem, TaskSource, TaskSplits, prompt_in
from rft.tasks.finite import FiniteTasks, by_difficulty, distinct
from rft.tasks.listed import call_source, read_dataset, read_import, read_jsonl
from rft.tasks.procedural import EndlessTasks, EnvironmentSeeds, Gym, held_out_items

Options = Mapping[str, Any]
Opened = EnvironmentSeeds | Gym | list[TaskItem]
ENVIRONMENT = "environment"


def open_sources(config: Config) -> TaskSplits:
    """Return the training tasks of ``config.tasks`` and all held-out sets, which share no prompt with them.

    If a set has the training source, its prompts are held out of training. If it has another, an endless training
    source leaves its prompts out, and a listed one must not contain any of them. Prompts are compared as the training
    template makes them, whatever the set's own template is.
    Raises ConfigError for a source that cannot be read, is too small, or shares prompts.
    """
    tasks = config.tasks
    source = _open(tasks.source, tasks.options, config)
    sets: dict[str, TaskSource] = {}
    excluded: set[str] = set()
    for chosen in config.eval_sets.values():
        own = (chosen.source, chosen.revision, chosen.options) == (tasks.source, tasks.revision, tasks.options)
        # Opened only once, for a user's function may give other tasks when it is called again.
        same = own and chosen.prompt_template == tasks.prompt_template
        opened = source if same else _open(chosen.source, chosen.options, _as_tasks(config, chosen), chosen)
        held_out = _hold_out(opened, chosen)
        prompts = {item.prompt for item in held_out}
        if chosen.prompt_template != tasks.prompt_template:
            prompts |= {prompt for item in held_out if (prompt := prompt_in(tasks.prompt_template, item))}
        if not own:
            _check_disjoint(source, prompts, chosen, config)
        sets[chosen.name] = FiniteTasks(held_out, "sequential", 0)
        excluded |= prompts
    if isinstance(source, EnvironmentSeeds | Gym):
        endless = EndlessTasks(source, config.run.seed, frozenset(excluded))
        endless[0]  # finds now, and not in the run, a template that does not fit or a source that is all held out
        if tasks.order in ("sequential", "shuffled"):
            return TaskSplits(endless, sets)
        return TaskSplits(_ordered(distinct([endless[number] for number in range(tasks.pool)]), config), sets)
    train = [item for item in source if item.prompt not in excluded]
    if not train:
        raise ConfigError(
            f"{tasks.source} has {len(excluded)} different prompts and "
            f"{', '.join(_key(chosen) for chosen in config.eval_sets.values())} holds all of them out; lower it or "
            "name another tasks.eval_source"
        )
    return TaskSplits(_ordered(train, config), sets)


def _ordered(items: Sequence[TaskItem], config: Config) -> FiniteTasks:
    """Return the items in ``tasks.order``. If a curriculum chooses, they keep the order of their indices."""
    tasks = config.tasks
    if tasks.order == "easy_to_hard":
        items = by_difficulty(items, tasks.difficulty)
    return FiniteTasks(items, "shuffled" if tasks.order == "shuffled" else "sequential", config.run.seed)


def _key(chosen: EvalSet) -> str:
    where = "eval" if chosen.name == MAIN_SET else f"eval.sets.{chosen.name}"
    return f"{where}.tasks = {chosen.tasks}"


def _as_tasks(config: Config, chosen: EvalSet) -> Config:
    """Return the configuration with the set's own template and revision."""
    own = {"prompt_template": chosen.prompt_template, "revision": chosen.revision}
    tasks = config.tasks.model_copy(update=own)
    return config.model_copy(update={"tasks": tasks})


def _open_gym(dataset: str, options: Options, config: Config, key: str) -> Gym:
    reserved = {"seed", "size"} & options.keys()
    if reserved:
        raise ConfigError(f"{key}.options: {min(reserved)!r} is set by us (from run.seed; the source has no end)")
    return Gym(dataset, options, config.tasks.prompt_template)


def _open_environment(rest: str, options: Options, config: Config, key: str) -> EnvironmentSeeds:
    if options:
        raise ConfigError(f"{key}.options: the source {ENVIRONMENT!r} takes none; see rollout.environment_options")
    del rest
    if config.rollout.environment is None:
        raise ConfigError(f'{key}.source = "{ENVIRONMENT}" needs rollout.environment')
    return EnvironmentSeeds(config.rollout.environment, config.tasks.prompt_template)


def _open_jsonl(path: str, options: Options, config: Config, key: str) -> list[TaskItem]:
    _check_options(read_jsonl, f"jsonl:{path}", options, key, given=2)
    return read_jsonl(Path(path), config.tasks.prompt_template, **options)


def _open_dataset(name: str, options: Options, config: Config, key: str) -> list[TaskItem]:
    repository = dataset_repository(f"{PREFIX}{name}", config.tasks.revision, f"{key}.source")
    assert repository is not None  # the prefix is there
    _check_options(read_dataset, f"{PREFIX}{name}", options, key, given=2)
    return read_dataset(repository, config.tasks.prompt_template, **options)


def _open_import(name: str, options: Options, config: Config, key: str) -> list[TaskItem]:
    del options, key
    return read_import(config, name)


SHIPPED: dict[str, Callable[[str, Options, Config, str], Opened]] = {
    "reasoning_gym:<dataset>": _open_gym,
    "jsonl:<file>": _open_jsonl,
    "hf:<owner>/<name>": _open_dataset,
    "import:<name>": _open_import,
    ENVIRONMENT: _open_environment,
}
"""What opens a source, by the form of its name. It gets what stands after the colon."""


def _open(name: str, options: Options, config: Config, chosen: EvalSet | None = None) -> Opened:
    key = "tasks" if chosen is None or chosen.name == MAIN_SET else f"eval.sets.{chosen.name}"
    field = "tasks.eval_source" if chosen and name == config.tasks.eval_source else f"{key}.source"
    kind, colon, rest = name.partition(":")
    shipped = next((opener for form, opener in SHIPPED.items() if form.startswith(f"{kind}:")), SHIPPED.get(name))
    if shipped is not None and (colon or name in SHIPPED):
        opened = shipped(rest, options, config, key)
    else:
        function: Any = resolve(field, name, SHIPPED)
        opened = call_source(name, function, config.tasks.prompt_template, config.run.seed, options)
    if not isinstance(opened, EnvironmentSeeds | Gym) and not opened:
        raise ConfigError(f"{field} = {name!r} is empty")
    return opened


def _check_options(function: Callable[..., Any], name: str, options: Options, key: str, given: int) -> None:
    known = list(inspect.signature(function).parameters)[given:]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ConfigError(f"{key}.options: {name} takes no {unknown[0]!r}; it takes {', '.join(known)}")


def _hold_out(source: Opened | Sequence[TaskItem], chosen: EvalSet) -> list[TaskItem]:
    if isinstance(source, EnvironmentSeeds | Gym):
        return held_out_items(source, chosen.tasks, _key(chosen))
    prompts = distinct(source)
    if len(prompts) < chosen.tasks:
        raise ConfigError(f"{_key(chosen)}, but {chosen.source} has only {len(prompts)} different prompts; lower it")
    return prompts[: chosen.tasks]


def _check_disjoint(
    source: Opened | Sequence[TaskItem], held_out: Collection[str], chosen: EvalSet, config: Config
) -> None:
    if isinstance(source, EnvironmentSeeds | Gym) or chosen.source == config.tasks.source:
        return
    shared = {item.prompt for item in source} & set(held_out)
    if shared:
        where = "tasks.eval_source" if chosen.name == MAIN_SET else f"eval.sets.{chosen.name}.source"
        option = where.rpartition(".")[2]
        raise ConfigError(
            f"tasks.source and {where} share {len(shared)} of {len(held_out)} held-out prompts, "
            f"e.g. {min(shared)[:80]!r}; remove them from {config.tasks.source}, or leave out {option} so that the "
            "training source is split"
        )
