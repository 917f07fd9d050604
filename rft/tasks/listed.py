"""Reads the sources that are read as a whole: JSONL files, datasets, ``[[imports]]`` and the user's functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rft.config import Config, ImportConfig
from rft.errors import ConfigError, DataError
from rft.hub.repository import Repository
from rft.plugins import USER_FAILURES
from rft.tasks.base import TaskItem, make_item

if TYPE_CHECKING:
    from rft.data.reading import Rows
    from rft.data.rows import RowMaker

MAX_ITEMS = 1_000_000
"""A function that gives more is taken for one that never ends."""


def read_jsonl(
    path: Path, template: str, question_field: str = "question", answer_field: str = "answer"
) -> list[TaskItem]:
    """Return one item for each line: a JSON object, whose fields other than question and answer become metadata.

    Raises ConfigError that names the file and the line.
    """
    return first_of_jsonl(path, None, template, question_field, answer_field)


def first_of_jsonl(
    path: Path, lines: int | None, template: str, question_field: str = "question", answer_field: str = "answer"
) -> list[TaskItem]:
    """Do as :func:`read_jsonl` does with the first ``lines`` lines; None: with all."""
    items = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(islice(file, lines), 1):
                if line.strip():
                    origin = f"{path}:{number}"
                    items.append(_item_of(_object(line, origin), template, origin, question_field, answer_field))
    except OSError as error:
        raise ConfigError(f"tasks: cannot read {path}: {error.strerror}") from error
    return items


def read_import(config: Config, name: str) -> list[TaskItem]:
    """Return one item for each row of the import ``name``.

    The import makes the prompt, and ``tasks.prompt_template`` is not used. Raises ConfigError if there is no such
    import, and one that names the row if a row cannot be used.
    """
    from rft.data.import_rows import open_import
    from rft.data.rows import RowMaker
    from rft.data.tokenizer import open_tokens  # loads transformers

    source = import_of_tasks(config, name)
    maker = RowMaker(config, source, open_tokens(config.policy))
    try:
        return items_of_rows(open_import(source), maker, source.path, source.limit)
    except DataError as error:
        raise ConfigError(f"tasks: {error}") from error


def import_of_tasks(config: Config, name: str) -> ImportConfig:
    """Return the import of tasks of that name. Raises ConfigError if there is none."""
    source = next((source for source in config.imports if source.name == name), None)
    if source is None or source.kind != "tasks":
        raise ConfigError(f"tasks: there is no [[imports]] with name = '{name}' and kind = 'tasks'")
    return source


def items_of_rows(rows: Rows, maker: RowMaker, path: Path, most: int | None) -> list[TaskItem]:
    """Return one item for each of the first ``most`` rows; None: of all. ``path`` is where they stand, for errors.

    Raises ConfigError, which names the row, if one cannot be used, and DataError if the rows cannot be read.
    """
    from rft.data.reading import BadRow

    items: list[TaskItem] = []
    for number, row in rows.numbered():
        if most is not None and len(items) >= most:
            break
        origin = f"{path}, row {number}"
        try:
            if isinstance(row, BadRow):
                raise DataError(f"is {row.cause}")
            items.append(make_item(maker.question(row), "{question}", origin))
        except DataError as error:
            raise ConfigError(f"tasks: {origin}: {error}") from error
    return items


def read_dataset(
    repository: Repository,
    template: str,
    config: str | None = None,
    split: str | None = None,
    question_field: str = "question",
    answer_field: str = "answer",
) -> list[TaskItem]:
    """Return one item for each row of a split of the hub's dataset; other columns become metadata.

    Args:
        config: The dataset's configuration, by default its default one.
        split: By default ``train``.
        question_field: The column with the question, a text.
        answer_field: The column with the answer; a row may have none.

    Raises HubError if it cannot be had, ConfigError that names the row if one cannot be used.
    """
    from rft.data.reading import BadRow, open_files
    from rft.hub.files import dataset_files  # loads the hub's client

    items: list[TaskItem] = []
    try:
        for number, row in open_files(dataset_files(repository, config, split)).numbered():
            origin = f"{repository}, row {number}"
            if isinstance(row, BadRow):
                raise ConfigError(f"tasks: {origin}: is {row.cause}")
            items.append(_item_of(row, template, origin, question_field, answer_field))
    except DataError as error:
        raise ConfigError(f"tasks: {error}") from error
    return items


def call_source(
    name: str, function: Callable[..., Any], template: str, seed: int, options: Mapping[str, Any]
) -> list[TaskItem]:
    """Return the items that ``function(seed, **options)`` gives: mappings with ``question`` and perhaps ``answer``.

    Raises ConfigError that names the function, and the item if one is wrong.
    """
    items = []
    try:
        given = function(seed, **options)
        if not isinstance(given, Iterable):
            raise ConfigError(f"tasks: {name} returned a {type(given).__name__}, must be an iterable of dicts")
        for number, raw in enumerate(islice(given, MAX_ITEMS + 1)):
            if not isinstance(raw, Mapping):
                raise ConfigError(f"{name}: item {number} is a {type(raw).__name__}, must be a dict")
            items.append(make_item(raw, template, f"{name}: item {number}"))
    except ConfigError:
        raise
    # The user's code may raise anything.
    except USER_FAILURES as error:
        raise ConfigError(f"tasks: {name} raised {type(error).__name__}: {error}") from error
    if len(items) > MAX_ITEMS:
        raise ConfigError(f"tasks: {name} gives more than {MAX_ITEMS} items; it must end")
    return items


def _item_of(row: Mapping[str, Any], template: str, origin: str, question_field: str, answer_field: str) -> TaskItem:
    raw = dict(row)
    if question_field not in raw:
        raise ConfigError(f"{origin}: has no field {question_field!r}; it has {', '.join(raw) or 'none'}")
    raw["question"] = raw.pop(question_field)
    raw["answer"] = raw.pop(answer_field, None)
    return make_item(raw, template, origin)


def _object(line: bytes, origin: str) -> dict[str, Any]:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin}: must be a JSON object, found a {type(raw).__name__}")
    return raw
