"""Reads which functions and options the shipped algorithms have from their source, because importing it loads torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rft.errors import ConfigError
from rft.plugins import FORM, unknown_name

TABLES = ("ADVANTAGES", "LOSSES", "KL", "AGGREGATIONS", "FILTERS", "TOKEN_FILTERS")
"""Of :mod:`rft.algorithms.compose`, the functions by name."""
_MODULES = (
    "advantages",
    "trajectories",
    "turns",
    "token_filters",
    "losses/clipping",
    "losses/offpolicy",
    "losses/preference",
)


def check_name(field: str, name: str, table: str) -> None:
    """Raise ConfigError unless ``name`` is a function of ``table``, as :func:`rft.plugins.resolve` does."""
    if name not in (known := names(table)):
        raise ConfigError(f"{field} = {unknown_name(name, [*known, FORM])}")


@cache
def names(table: str) -> tuple[str, ...]:
    """Return the names in one of ``TABLES``."""
    for node in _parse("compose").body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == table:
            if isinstance(node.value, ast.Dict):
                return tuple(str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
            return _all("losses/__init__")
    raise LookupError(table)


@cache
def options(function: str) -> tuple[str, ...]:
    """Return the options of a shipped advantage, loss or token filter."""
    for module in _MODULES:
        for node in _parse(module).body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                given = node.args
                with_default = given.args[len(given.args) - len(given.defaults) :]
                return tuple(one.arg for one in (*with_default, *given.kwonlyargs))
    raise LookupError(function)


@cache
def needs(function: str) -> frozenset[str]:
    """Return what a shipped function declares by ``@needs(…)``: ``reference``, ``teacher``, …"""
    for module in _MODULES:
        for node in _parse(module).body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                calls = [one for one in node.decorator_list if isinstance(one, ast.Call)]
                return frozenset(one.arg for call in calls for one in call.keywords if one.arg)
    raise LookupError(function)


def _all(module: str) -> tuple[str, ...]:
    for node in _parse(module).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return tuple(ast.literal_eval(node.value))
    raise LookupError(module)


@cache
def _parse(module: str) -> ast.Module:
    specification = find_spec("rft.algorithms")
    assert specification is not None
    assert specification.origin is not None
    return ast.parse((Path(specification.origin).parent / f"{module}.py").read_text("utf-8"))
