"""Sources that are read as a whole: JSONL files and functions of the user's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rft.errors import ConfigError
from rft.plugins import load
from rft.tasks.base import TaskItem, make_item

MOST_ITEMS = 1_000_000
"""A function that gives more is taken for one that never ends."""


def read_jsonl(
    path: Path, template: str, question_field: str = "question", answer_field: str = "answer"
) -> list[TaskItem]:
    """One item for each line: a JSON object; fields other than question and answer become metadata.

    Raises ConfigError that names the file and the line.
    """
    items = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    origin = f"{path}:{number}"
                    raw = _object(line, origin)
                    if question_field not in raw:
                        raise ConfigError(
                            f"{origin}: has no field {question_field!r}; it has {', '.join(raw) or 'none'}"
                        )
                    raw["question"] = raw.pop(question_field)
                    raw["answer"] = raw.pop(answer_field, None)
                    items.append(make_item(raw, template, origin))
    except OSError as error:
        raise ConfigError(f"tasks: cannot read {path}: {error.strerror}") from error
    return items


def call_source(name: str, template: str, seed: int, options: Mapping[str, Any]) -> list[TaskItem]:
    """What ``package.module:function(seed, **options)`` gives: mappings with ``question`` and perhaps ``answer``.

    Raises ConfigError that names the function, and the item where one is wrong.
    """
    function = load(name)
    items = []
    try:
        given = function(seed, **options)
        if not isinstance(given, Iterable):
            raise ConfigError(f"tasks: {name} returned a {type(given).__name__}, must be an iterable of dicts")
        for number, raw in enumerate(islice(given, MOST_ITEMS + 1)):
            if not isinstance(raw, Mapping):
                raise ConfigError(f"{name}: item {number} is a {type(raw).__name__}, must be a dict")
            items.append(make_item(raw, template, f"{name}: item {number}"))
    except ConfigError:
        raise
    # A task source is anyone's code and may raise anything.
    except Exception as error:
        raise ConfigError(f"tasks: {name} raised {type(error).__name__}: {error}") from error
    if len(items) > MOST_ITEMS:
        raise ConfigError(f"tasks: {name} gives more than {MOST_ITEMS} items; it must end")
    return items


def _object(line: bytes, origin: str) -> dict[str, Any]:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin}: must be a JSON object, found a {type(raw).__name__}")
    return raw
