"""The files of ``avsc/history/``: what may be added to them, and holding schemas against them."""

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
"""Records whose versions are kept: those that are written by themselves, with what they nest."""


def check_current() -> dict[str, list[Incompatibility]]:
    """Holds every current schema against all its versions; what is wrong, by file name."""
    return {f"{name}.avsc": _hold(current(name), f"{name}.avsc") for name in FROZEN}


def check_file(path: Path) -> list[Incompatibility]:
    """Holds the schema in a file against all versions of its record.

    Raises IncompatibleSchemaError when the file is no schema of a record of ours.
    """
    try:
        schema = build(json.loads(path.read_text(encoding="utf-8")))
        if not schema.name or schema.name not in FROZEN:
            raise IncompatibleSchemaError(
                f"{path}: holds {schema.name!r}; there are versions of {', '.join(FROZEN)} in namespace {NAMESPACE} "
                "only. To change a record nested in one of them, check the one that nests it"
            )
        return _hold(schema, path.name)
    except OSError as error:
        raise IncompatibleSchemaError(f"{path}: cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise IncompatibleSchemaError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, KeyError, TypeError, fastavro.schema.SchemaParseException, avro.errors.AvroException) as error:
        raise IncompatibleSchemaError(f"{path}: not a valid Avro schema: {error}") from None


def unfrozen() -> list[str]:
    """Records whose current schema differs from their newest version in more than docs."""
    return [name for name in FROZEN if not _is_newest(name)]


def freeze() -> list[Path]:
    """Adds the schemas that have changed as new versions; returns the files written.

    Raises IncompatibleSchemaError when one may not follow the others; nothing is written then.
    """
    names = unfrozen()
    problems = [problem for name in names for problem in _hold(current(name), f"{name}.avsc")]
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
    """For each problem a line on what is wrong where, and one on what to do."""
    return [line for problem in problems for line in (f"{problem.reader}: {problem}", f"    {problem.advice}")]


def _hold(schema: Schema, name: str) -> list[Incompatibility]:
    versions = {f"{schema.name}.v{number}.avsc": version for number, version in history(schema.name).items()}
    return full_transitive(schema, name, versions)


def _is_newest(name: str) -> bool:
    versions = history(name)
    newest = versions[max(versions)] if versions else None
    return newest is not None and _bare(json.loads(newest.text)) == _bare(json.loads(current(name).text))


def _bare(node: Any) -> Any:
    """Without docs, which may change freely."""
    if isinstance(node, list):
        return [_bare(child) for child in node]
    if isinstance(node, dict):
        return {key: _bare(value) for key, value in node.items() if key != "doc"}
    return node
