"""Checks the task sources: their names and options, the prompt template, and some tasks of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.errors import ConfigError, RftError
from rft.tasks.base import TaskItem
from rft.tasks.chat import task_metadata
from rft.tasks.curriculum import Curriculum

NO_ANSWERS = {"nan", "null", "none", "n/a", "inf", "-inf"}
"""What libraries write where an answer is missing."""


def tasks(facts: Facts) -> Iterator[Finding]:
    """Find sources that cannot be opened, tasks that cannot be issued, and answers that are none."""
    config = facts.config
    if isinstance(facts.read_tasks, RftError):
        raise facts.read_tasks
    samples = facts.read_tasks
    Curriculum(config.tasks, config.run.seed, samples.train)
    for item in samples.train:
        task_metadata(config.tasks, item)
    size = "" if samples.size is None else f", {samples.size:,} for training"
    sets = ", ".join(f"{chosen.tasks:,} held out ({name})" for name, chosen in config.eval_sets.items())
    yield Finding("ok", f"tasks of {config.tasks.source}{size}{f', {sets}' if sets else ''}")
    yield from _answers(config.tasks.source, samples.train)
    _check_differ(config.tasks.source, samples.train)


def _answers(source: str, items: Sequence[TaskItem]) -> Iterator[Finding]:
    missing = Counter(item.answer for item in items if (item.answer or "").strip().lower() in NO_ANSWERS)
    if missing:
        (text, _), *_ = missing.most_common(1)
        yield Finding(
            "warn",
            f"{missing.total()} of {len(items)} tasks of {source} have an answer like {text!r}",
            "a library wrote it where there was no answer; remove these tasks, or give them their answers",
        )
    empty = sum(item.answer is not None and not item.answer.strip() for item in items)
    if empty:
        yield Finding(
            "warn",
            f"{empty} of {len(items)} tasks of {source} have an empty answer",
            "a model that says nothing is right then; remove these tasks, or give them their answers",
        )


def _check_differ(source: str, items: Sequence[TaskItem]) -> None:
    prompts = {item.prompt for item in items}
    if len(items) > 1 and len(prompts) == 1:
        raise ConfigError(
            f"all tasks of {source} that were looked at have the same prompt, {items[0].prompt[:60]!r}: use a field of "
            "the tasks in tasks.prompt_template, such as {question}"
        )
