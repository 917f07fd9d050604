"""Checks the files of ``[[imports]]`` and their first rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.config import ImportConfig
from rft.data.reading import BadRow, open_rows
from rft.errors import ConfigError, DataError

ROWS = 32


def imports(facts: Facts) -> Iterator[Finding]:
    """Find files that are missing or cannot be read, and columns that they do not have."""
    for source in facts.config.imports:
        if source.on_hub:
            continue
        if _is_of_a_stage(facts, source) and not source.path.exists():
            continue
        if source.kind == "experiences":
            if not source.path.exists():
                raise ConfigError(f"[[imports]] {source.name}: there is no {source.path.absolute()}; set path")
            continue
        try:
            yield from _rows(facts, source)
        except DataError as error:
            raise ConfigError(f"[[imports]] {source.name}: {error}") from error


def _is_of_a_stage(facts: Facts, source: ImportConfig) -> bool:
    """Return whether another stage of the run writes the file: it is not there before that has run."""
    stages = facts.config.run.path.parent
    return stages.name == "stages" and source.path.absolute().is_relative_to(stages)


def _rows(facts: Facts, source: ImportConfig) -> Iterator[Finding]:
    from rft.data.chat import Tokens
    from rft.data.rows import RowMaker

    rows = open_rows(source.path, source.subset)
    first = list(islice(rows.numbered(), ROWS))
    if not first:
        raise DataError(f"{source.path} has no rows")
    if facts.tokenizer is None:
        return
    maker = RowMaker(facts.config, source, Tokens(facts.tokenizer, frozenset(), facts.config.policy.template_options))
    faults = []
    for number, row in first:
        try:
            if isinstance(row, BadRow):
                raise DataError(f"is {row.cause}")
            maker.events(row, 0)
        except DataError as error:
            faults.append(f"row {number}: {error}")
    what = f"[[imports]] {source.name}: {len(faults)} of the first {len(first)} rows of {source.path} cannot be used"
    if len(faults) == len(first):
        yield Finding("fail", f"{what}, e.g. {faults[0]}", "fix the file, or name its columns in imports.columns")
    elif faults:
        yield Finding("warn", f"{what}, e.g. {faults[0]}", f"they will be written to {source.rejected_path}")
    else:
        yield Finding("ok", f"import {source.name}: {rows.total:,} rows of {source.path}")
