"""Takes some tasks of each source: the first ones, and some from further on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rft.config import Config, ImportConfig
from rft.data.reading import open_rows
from rft.tasks.base import TaskItem, TaskSource
from rft.tasks.procedural import ENDLESS

if TYPE_CHECKING:
    from infra.preflight.tokenizer import FileTokenizer

FIRST, FURTHER = 48, 16
LARGE_BYTES = 16 * 2**20
"""Of a larger file only the first tasks are read: all of it takes more than a second."""
IMPORT, HUB = "import:", "hf:"


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """Tasks for training and of each held-out set."""

    train: Sequence[TaskItem]
    sets: Mapping[str, Sequence[TaskItem]] = field(default_factory=dict)
    size: int | None = None
    """Number of tasks for training; None if it is not known."""


def sample_tasks(config: Config, tokenizer: FileTokenizer | None) -> TaskSamples:
    """Return some tasks of all sources; none if one of them is a dataset of the hub.

    Raises ConfigError, and DataError, as the conductor would.
    """
    name = config.tasks.source
    if any(one.startswith(HUB) for one in (name, *(chosen.source for chosen in config.eval_sets.values()))):
        return TaskSamples(())
    if name.startswith(IMPORT):
        return TaskSamples(_from_import(config, name.removeprefix(IMPORT), tokenizer))
    if _is_large(name):
        return TaskSamples(_from_beginning(config, Path(name.removeprefix("jsonl:"))))
    from rft.tasks import open_sources

    splits = open_sources(config)
    size = len(splits.train)
    sets = {name: _some(source) for name, source in splits.sets.items()}
    return TaskSamples(_some(splits.train), sets, size if size < ENDLESS else None)


def _some(source: TaskSource) -> list[TaskItem]:
    size = len(source)
    # An endless source makes hundreds of tasks for each one from further on.
    step = 1 if size >= ENDLESS else max(1, (size - FIRST) // FURTHER)
    further = range(FIRST, size, step)[:FURTHER]
    return [source[index] for index in (*range(min(FIRST, size)), *further)]


def _is_large(name: str) -> bool:
    file = Path(name.removeprefix("jsonl:"))
    return name.startswith("jsonl:") and file.is_file() and file.stat().st_size > LARGE_BYTES


def _from_beginning(config: Config, file: Path) -> list[TaskItem]:
    """Return the first items of a large JSONL file. Some of them may be held out."""
    from rft.tasks.listed import first_of_jsonl

    return first_of_jsonl(file, FIRST + FURTHER, config.tasks.prompt_template, **config.tasks.options)


def _from_import(config: Config, name: str, tokenizer: FileTokenizer | None) -> list[TaskItem]:
    from rft.tasks.listed import import_of_tasks

    source = import_of_tasks(config, name)
    return [] if source.on_hub else list(items_of_import(config, source, tokenizer))


def items_of_import(config: Config, source: ImportConfig, tokenizer: FileTokenizer | None) -> Sequence[TaskItem]:
    """Return the tasks of the first rows of an import. Raises DataError, which names the row.

    Without a tokenizer, rows of chat messages give none.
    """
    from rft.data.chat import Tokens
    from rft.data.rows import RowMaker
    from rft.tasks.listed import items_of_rows

    if tokenizer is None or (not tokenizer.chat_template and source.chat):
        return []
    maker = RowMaker(config, source, Tokens(tokenizer, frozenset(), config.policy.template_options))
    return items_of_rows(open_rows(source.path, source.subset), maker, source.path, FIRST)
