"""Loads a function of the user's, named ``package.module:function`` in the configuration."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rft.errors import ConfigError


def is_plugin(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:function``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load(name: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names.

    The working directory is searched too, so that a file beside the configuration needs no installation.
    Raises ConfigError that says which part of the name is wrong.
    """
    if not is_plugin(name):
        raise ConfigError(f"{name!r} does not name a function; write package.module:function")
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    # Importing runs the user's code, which may raise anything.
    except Exception as error:
        raise ConfigError(f"{name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise ConfigError(f"{name!r}: {module.__file__ or module_name} has no {function_name!r}")
    if not callable(function):
        raise ConfigError(f"{name!r}: is a {type(function).__name__}, not a function")
    return function
