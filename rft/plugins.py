"""Resolves the names in the configuration that stand for functions: a shipped one, or ``package.module:function``.

Every such field goes through :func:`resolve`, so that a typo is answered in the same way everywhere: with the field,
the nearest name and all names that there are.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from rft.errors import ConfigError

T = TypeVar("T")
FORM = "package.module:function"
"""How a user's own function is named."""


def resolve(field: str, name: str, shipped: Mapping[str, T]) -> T:
    """Return what ``name`` stands for in ``field``: the shipped value of that name, or the user's function.

    Raises ConfigError that names the field. For an unknown name it lists what there is and suggests the nearest, for a
    function that cannot be loaded it says which part of the name is wrong.
    """
    if name in shipped:
        return shipped[name]
    if not is_plugin(name):
        raise ConfigError(f"{field} = {unknown_name(name, [*shipped, FORM])}")
    return cast("T", _load(f"{field} = {name!r}", name, nearest(name, shipped)))


def unknown_name(name: str, known: Iterable[str]) -> str:
    """Return the error text for a name that is none of ``known``: the nearest of them, and all of them."""
    *others, last = known
    listed = f"{', '.join(others)} or {last}" if others else last
    near = nearest(name, [*others, last])
    return f"{name!r} is unknown{f' (did you mean {near!r}?)' if near else ''}; choose {listed}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name in ``known`` that ``name`` is most likely a misspelling of, or None.

    Of a name like ``jsonl:<file>`` only the part before the colon has to be near.
    """
    heads = {other.partition(":")[0]: other for other in known}
    near = difflib.get_close_matches(name.partition(":")[0], heads, n=1)
    return heads[near[0]] if near else None


def is_plugin(name: str) -> bool:
    """Return whether ``name`` has the form ``package.module:function``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


USER_FAILURES: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What a user's function may raise without ending the process. ``sys.exit()`` in it is a failure like any other: in an
event loop, SystemExit would end the loop and leave the process."""


def error_text(error: BaseException) -> str:
    """Return the message of an error that a user's code raised. Its ``__str__`` may fail, too."""
    try:
        return str(error)
    except USER_FAILURES:
        return "without a message"


def _load(written: str, name: str, near: str | None) -> Any:
    """Import the user's function. Its file may lie in the working directory, and then needs no installation."""
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    # Importing runs the user's code, which may raise anything.
    except USER_FAILURES as error:
        hint = f"; did you mean {near!r}?" if near and isinstance(error, ModuleNotFoundError) else ""
        cause = f"{type(error).__name__}: {error}{hint}"
        raise ConfigError(f"{written}: importing {module_name!r} failed: {cause}") from error
    function = getattr(module, function_name, None)
    if function is None:
        similar = nearest(function_name, vars(module))
        hint = f"; did you mean {similar!r}?" if similar else ""
        raise ConfigError(f"{written}: {module.__file__ or module_name} has no {function_name!r}{hint}")
    if not callable(function):
        raise ConfigError(f"{written}: is a {type(function).__name__}, not a function")
    return function
