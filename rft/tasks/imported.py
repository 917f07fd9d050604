"""Tasks from a file whose columns ``[[imports]]`` names."""

from __future__ import annotations

from pathlib import Path

from rft.config import Config
from rft.errors import ConfigError, DataError
from rft.tasks.base import TaskItem, make_item


def read_import(config: Config, name: str) -> list[TaskItem]:
    """One item for each row; its prompt is as the import makes it, ``tasks.prompt_template`` plays no part.

    Raises ConfigError for an unknown name, and one that names the row for a row that cannot be used.
    """
    from rft.data.reading import BadRow, open_rows
    from rft.data.rows import RowMaker
    from rft.data.tokenizer import open_tokens  # loads transformers

    source = next((source for source in config.imports if source.name == name), None)
    if source is None or source.kind != "tasks":
        raise ConfigError(f"tasks: there is no [[imports]] with name = '{name}' and kind = 'tasks'")
    maker = RowMaker(config, source, open_tokens(Path(config.policy.model)))
    items: list[TaskItem] = []
    try:
        for number, row in open_rows(source.path, source.subset).numbered():
            if source.limit is not None and len(items) >= source.limit:
                break
            origin = f"{source.path}, row {number}"
            try:
                if isinstance(row, BadRow):
                    raise DataError(f"is {row.cause}")
                items.append(make_item(maker.question(row), "{question}", origin))
            except DataError as error:
                raise ConfigError(f"tasks: {origin}: {error}") from error
    except DataError as error:
        raise ConfigError(f"tasks: {error}") from error
    return items
