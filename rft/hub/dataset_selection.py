"""Chooses the files of a dataset's repository by configuration and split. Pure.

A dataset's card (``README.md``) may list its configurations with their files. Without such a list, the hub's own rules
are followed: the split is the word ``train``, ``validation`` or ``test`` in a file's name or folder. A first folder
that is neither a split nor ``data`` is the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from rft.errors import HubError

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".arrow")
"""Those of files that :mod:`rft.data.reading` reads."""
DEFAULT, TRAIN = "default", "train"
_SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps its own conversion of a dataset to Parquet."""
Tree = dict[str, dict[str, list[str]]]
"""Files by configuration and split."""


def choose_files(
    name: str,
    files: Collection[str],
    configs: Sequence[Mapping[str, Any]],
    config: str | None,
    split: str | None,
) -> list[str]:
    """Return the files of a repository that hold one split, in order.

    Args:
        name: The repository, for errors.
        files: All of its files.
        configs: ``configs`` of its card; empty if it has none.
        config: The configuration; by default the only one, the one marked as default, or ``default``.
        split: The split; by default ``train``, or the only one.

    Raises HubError that names what there is.
    """
    usable = sorted(file for file in files if file.endswith(SUFFIXES))
    if not usable:
        others = sorted({PurePosixPath(file).suffix for file in files if not file.startswith(".")} - {"", ".md"})
        raise HubError(
            f"dataset {name} holds no {', '.join(SUFFIXES)} file, only {', '.join(others) or 'none at all'}. "
            f"Set revision = '{_CONVERTED}', where the hub keeps most datasets as Parquet."
        )
    tree = _tree_of_card(usable, configs) or _tree_by_names(usable)
    if config is None:
        marked = [str(entry.get("config_name")) for entry in configs if entry.get("default")]
        candidates = [*marked, DEFAULT, *(tree if len(tree) == 1 else ())]
        config = next((candidate for candidate in candidates if candidate in tree), None)
    if config not in tree:
        wrong = f"has no configuration '{config}'" if config else "has several configurations"
        raise HubError(f"dataset {name} {wrong}: set config to one of {', '.join(sorted(tree))}")
    splits = tree[config]
    if split is None:
        split = TRAIN if TRAIN in splits else next(iter(splits)) if len(splits) == 1 else None
    if split not in splits:
        wrong = f"has no split '{split}'" if split else "has several splits"
        raise HubError(f"dataset {name}, configuration {config}, {wrong}: set it to one of {', '.join(sorted(splits))}")
    return splits[split]


def _tree_of_card(files: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> Tree:
    tree: Tree = {}
    for entry in configs:
        splits: dict[str, list[str]] = {}
        for split, pattern in _patterns(entry):
            found = [file for file in files if fnmatchcase(file, pattern.replace("**/", "*"))]
            splits[split] = list(dict.fromkeys([*splits.get(split, ()), *found]))
        if splits := {split: found for split, found in splits.items() if found}:
            tree[str(entry.get("config_name", DEFAULT))] = splits
    return tree


def _patterns(entry: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield (split, pattern) of one configuration; ``data_files`` is a text, a list of texts or a list of splits."""
    given = entry.get("data_files")
    for item in given if isinstance(given, list) else [given]:
        if isinstance(item, Mapping):
            paths = item.get("path")
            for path in paths if isinstance(paths, list) else [paths]:
                yield str(item.get("split", TRAIN)), str(path)
        elif isinstance(item, str):
            yield TRAIN, item


def _tree_by_names(files: Sequence[str]) -> Tree:
    tree: Tree = {}
    for file in files:
        path = PurePosixPath(file)
        folders = path.parts[:-1]
        words = [_split_in(path.stem), *(_split_in(folder) for folder in reversed(folders))]
        split = next((word for word in words if word), TRAIN)
        first = folders[0] if folders else "data"
        config = DEFAULT if first == "data" or _split_in(first) else first
        tree.setdefault(config, {}).setdefault(split, []).append(file)
    return tree


def _split_in(text: str) -> str | None:
    words = re.split(r"[^a-z]+", text.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)
