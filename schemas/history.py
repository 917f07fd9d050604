"""Checks schemas against the versions in ``avsc/history/``, and adds new versions to them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import avro.errors
import fastavro

from schemas.compatibility import Incompatibility, full_transitive
from schemas.errors import IncompatibleSchemaError
from schemas.load import HISTORY, NAMES, NAMESPACE, STORED, Schema, build, current, history

FROZEN = (*NAMES, STORED)
"""Records whose versions are kept: those that are written on their own. Nested records are part of them."""


def check_current() -> dict[str, list[Incompatibility]]:
    """Check every current schema against all its versions; return the incompatibilities by file name."""
    return {f"{name}.avsc": _check(current(name), f"{name}.avsc") for name in FROZEN}


def check_file(path: Path) -> list[Incompatibility]:
    """Check the schema in a file against all versions of its record.

    Raises IncompatibleSchemaError if the file is not a schema of one of our records.
    """
    try:
        schema = build(json.loads(path.read_text(encoding="utf-8")))
        if not schema.name or schema.name not in FROZEN:
            raise IncompatibleSchemaError(
                f"{path}: holds {schema.name!r}, but only {', '.join(FROZEN)} in namespace {NAMESPACE} have versions. "
                "To change a record nested in one of them, check the record that contains it"
            )
        return _check(schema, path.name)
    except OSError as error:
        raise IncompatibleSchemaError(f"{path}: cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise IncompatibleSchemaError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, KeyError, TypeError, fastavro.schema.SchemaParseException, avro.errors.AvroException) as error:
        raise IncompatibleSchemaError(f"{path}: not a valid Avro schema: {error}") from None


def unfrozen() -> list[str]:
    """Return the records whose current schema differs from their newest version in more than docs."""
    return [name for name in FROZEN if not _is_newest(name)]


def freeze() -> list[Path]:
    """Add the schemas that have changed as new versions, and return the files written.

    Raises IncompatibleSchemaError if one is incompatible with earlier versions; then nothing is written.
    """
    names = unfrozen()
    problems = [problem for name in names for problem in _check(current(name), f"{name}.avsc")]
    if problems:
        raise IncompatibleSchemaError("\n".join(explain(problems)))
    written = []
    for name in names:
        path = HISTORY / f"{name}.v{max(history(name), default=0) + 1}.avsc"
        path.write_text(json.dumps(json.loads(current(name).text), indent=2, ensure_ascii=False) + "\n", "utf-8")
        written.append(path)
    history.cache_clear()
    return written


def explain(problems: Iterable[Incompatibility]) -> list[str]:
    """Return two lines for each problem: what is wrong where, and what to do."""
    return [line for problem in problems for line in (f"{problem.reader}: {problem}", f"    {problem.advice}")]


def _check(schema: Schema, name: str) -> list[Incompatibility]:
    versions = {f"{schema.name}.v{number}.avsc": version for number, version in history(schema.name).items()}
    return full_transitive(schema, name, versions)


def _is_newest(name: str) -> bool:
    versions = history(name)
    newest = versions[max(versions)] if versions else None
    return newest is not None and _bare(json.loads(newest.text)) == _bare(json.loads(current(name).text))


def _bare(node: Any) -> Any:
    """Return the schema without docs, which may change freely."""
    if isinstance(node, list):
        return [_bare(child) for child in node]
    if isinstance(node, dict):
        return {key: _bare(value) for key, value in node.items() if key != "doc"}
    return node
