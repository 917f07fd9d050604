"""Opens the configured sources and keeps the held-out tasks out of training.

Two tasks are the same if their prompts are. What is held out depends on the source and the set's size, never on
``run.seed``: a model that one run trained can be evaluated by the next.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft.config import MAIN_SET, Config, EvalSet
from rft.errors import ConfigError
from rft.plugins import is_plugin
from rft.tasks.base import TaskItem, TaskSource, TaskSplits, prompt_in
from rft.tasks.finite import FiniteTasks, by_difficulty, distinct
from rft.tasks.imported import read_import
from rft.tasks.listed import call_source, read_jsonl
from rft.tasks.procedural import EndlessTasks, Gym, held_out_of

GYM = "reasoning_gym:"
JSONL = "jsonl:"
IMPORT = "import:"


def open_sources(config: Config) -> TaskSplits:
    """Training tasks of ``config.tasks`` and all held-out sets, without a prompt of these among those.

    A set of the training source has its prompts held out of it. Of another source, a listed one must not share prompts
    with a listed training source; an endless training source leaves them out. Prompts are compared as the training
    template makes them, whatever a set's own is.
    Raises ConfigError for a source that cannot be read, is too small, or shares prompts.
    """
    tasks = config.tasks
    source = _open(tasks.source, tasks.options, config)
    sets: dict[str, TaskSource] = {}
    excluded: set[str] = set()
    for chosen in config.eval_sets.values():
        own = (chosen.source, chosen.options) == (tasks.source, tasks.options)
        # A function of the user's may give other tasks when it is called again.
        same = own and chosen.prompt_template == tasks.prompt_template
        opened = source if same else _open(chosen.source, chosen.options, _asking(config, chosen), chosen)
        kept_back = _hold_out(opened, chosen)
        prompts = {item.prompt for item in kept_back}
        if chosen.prompt_template != tasks.prompt_template:
            prompts |= {prompt for item in kept_back if (prompt := prompt_in(tasks.prompt_template, item))}
        if not own:
            _check_disjoint(source, prompts, chosen, config)
        sets[chosen.name] = FiniteTasks(kept_back, "sequential", 0)
        excluded |= prompts
    if isinstance(source, Gym):
        endless = EndlessTasks(source, config.run.seed, frozenset(excluded))
        endless[0]  # a template that does not fit, or a space held out as a whole, is found now and not in the run
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
    """What ``tasks.order`` makes of them; where a curriculum chooses, they stand in the order of their indices."""
    tasks = config.tasks
    if tasks.order == "easy_to_hard":
        items = by_difficulty(items, tasks.difficulty)
    return FiniteTasks(items, "shuffled" if tasks.order == "shuffled" else "sequential", config.run.seed)


def _key(chosen: EvalSet) -> str:
    where = "eval" if chosen.name == MAIN_SET else f"eval.sets.{chosen.name}"
    return f"{where}.tasks = {chosen.tasks}"


def _asking(config: Config, chosen: EvalSet) -> Config:
    """The configuration with a set's own template."""
    tasks = config.tasks.model_copy(update={"prompt_template": chosen.prompt_template})
    return config.model_copy(update={"tasks": tasks})


def _open(name: str, options: Mapping[str, Any], config: Config, chosen: EvalSet | None = None) -> Gym | list[TaskItem]:
    template = config.tasks.prompt_template
    key = "tasks" if chosen is None or chosen.name == MAIN_SET else f"eval.sets.{chosen.name}"
    if name.startswith(GYM):
        reserved = {"seed", "size"} & options.keys()
        if reserved:
            raise ConfigError(f"{key}.options: {min(reserved)!r} is set by us (from run.seed; the source has no end)")
        return Gym(name.removeprefix(GYM), options, template)
    if name.startswith(JSONL):
        _check_options(read_jsonl, name, options, given=2)
        items = read_jsonl(Path(name.removeprefix(JSONL)), template, **options)
    elif name.startswith(IMPORT):
        items = read_import(config, name.removeprefix(IMPORT))
    elif is_plugin(name):
        items = call_source(name, template, config.run.seed, options)
    else:
        raise ConfigError(
            f"{key}: {name!r} is no source; write reasoning_gym:<dataset>, jsonl:<file>, import:<name> or "
            "package.module:function"
        )
    if not items:
        raise ConfigError(f"{key}: {name} is empty")
    return items


def _check_options(function: Callable[..., Any], name: str, options: Mapping[str, Any], given: int) -> None:
    known = list(inspect.signature(function).parameters)[given:]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ConfigError(f"tasks.options: {name} takes no {unknown[0]!r}; it takes {', '.join(known)}")


def _hold_out(source: Gym | Sequence[TaskItem], chosen: EvalSet) -> list[TaskItem]:
    if isinstance(source, Gym):
        return held_out_of(source, chosen.tasks, _key(chosen))
    prompts = distinct(source)
    if len(prompts) < chosen.tasks:
        raise ConfigError(f"{_key(chosen)}, but {chosen.source} has only {len(prompts)} different prompts; lower it")
    return prompts[: chosen.tasks]


def _check_disjoint(
    source: Gym | Sequence[TaskItem], kept_back: Collection[str], chosen: EvalSet, config: Config
) -> None:
    if isinstance(source, Gym) or chosen.source == config.tasks.source:
        return
    shared = {item.prompt for item in source} & set(kept_back)
    if shared:
        where = "tasks.eval_source" if chosen.name == MAIN_SET else f"eval.sets.{chosen.name}.source"
        option = where.rpartition(".")[2]
        raise ConfigError(
            f"tasks.source and {where} share {len(shared)} of {len(kept_back)} held-out prompts, "
            f"e.g. {min(shared)[:80]!r}; remove them from {config.tasks.source} or leave out {option} to have it "
            "split"
        )
