"""Opens the configured sources and keeps the held-out tasks out of training.

Two tasks are the same if their prompts are. What is held out depends on the source and ``eval.tasks``, never on
``run.seed``: a model that one run trained can be evaluated by the next.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft.config import Config
from rft.errors import ConfigError
from rft.plugins import is_plugin
from rft.tasks.base import TaskItem, TaskSplits
from rft.tasks.finite import FiniteTasks, distinct
from rft.tasks.imported import read_import
from rft.tasks.listed import call_source, read_jsonl
from rft.tasks.procedural import EndlessTasks, Gym, held_out

GYM = "reasoning_gym:"
JSONL = "jsonl:"
IMPORT = "import:"


def open_sources(config: Config) -> TaskSplits:
    """Training and held-out tasks of ``config.tasks``, without a prompt in common.

    One source is split: ``eval.tasks`` prompts are held out, the rest is trained on. Of two sources
    (``tasks.eval_source``) a listed one must not share prompts with the other; an endless one leaves them out.
    Raises ConfigError for a source that cannot be read, is too small, or shares prompts.
    """
    tasks = config.tasks
    source = _open(tasks.source, tasks.options, config)
    if tasks.eval_source is None:
        kept_back = _hold_out(source, tasks.source, config.eval.tasks)
    else:
        evaluation_source = _open(tasks.eval_source, tasks.eval_options, config)
        kept_back = _hold_out(evaluation_source, tasks.eval_source, config.eval.tasks)
        _check_disjoint(source, kept_back, config)
    excluded = frozenset(item.prompt for item in kept_back)
    held_out_tasks = FiniteTasks(kept_back, "sequential", 0)
    if isinstance(source, Gym):
        endless = EndlessTasks(source, config.run.seed, excluded)
        endless[0]  # a template that does not fit, or a space held out as a whole, is found now and not in the run
        return TaskSplits(endless, held_out_tasks)
    train = [item for item in source if item.prompt not in excluded]
    if not train:
        raise ConfigError(
            f"{tasks.source} has {len(excluded)} different prompts and eval.tasks = {config.eval.tasks} holds all "
            "of them out; lower it or name another tasks.eval_source"
        )
    return TaskSplits(FiniteTasks(train, tasks.order, config.run.seed), held_out_tasks)


def _open(name: str, options: Mapping[str, Any], config: Config) -> Gym | list[TaskItem]:
    template = config.tasks.prompt_template
    if name.startswith(GYM):
        reserved = {"seed", "size"} & options.keys()
        if reserved:
            raise ConfigError(f"tasks.options: {min(reserved)!r} is set by us (from run.seed; the source has no end)")
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
            f"tasks: {name!r} is no source; write reasoning_gym:<dataset>, jsonl:<file>, import:<name> or "
            "package.module:function"
        )
    if not items:
        raise ConfigError(f"tasks: {name} is empty")
    return items


def _check_options(function: Callable[..., Any], name: str, options: Mapping[str, Any], given: int) -> None:
    known = list(inspect.signature(function).parameters)[given:]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ConfigError(f"tasks.options: {name} takes no {unknown[0]!r}; it takes {', '.join(known)}")


def _hold_out(source: Gym | Sequence[TaskItem], name: str, tasks: int) -> list[TaskItem]:
    if isinstance(source, Gym):
        return held_out(source, tasks)
    prompts = distinct(source)
    if len(prompts) < tasks:
        raise ConfigError(f"eval.tasks = {tasks}, but {name} has only {len(prompts)} different prompts; lower it")
    return prompts[:tasks]


def _check_disjoint(source: Gym | Sequence[TaskItem], kept_back: Sequence[TaskItem], config: Config) -> None:
    if isinstance(source, Gym):
        return
    shared = {item.prompt for item in source} & {item.prompt for item in kept_back}
    if shared:
        raise ConfigError(
            f"tasks.source and tasks.eval_source share {len(shared)} of {len(kept_back)} held-out prompts, "
            f"e.g. {min(shared)[:80]!r}; remove them from {config.tasks.source} or leave out eval_source to have "
            "it split"
        )
