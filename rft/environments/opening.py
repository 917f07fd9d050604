"""Finds the environment that ``rollout.environment`` names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from rft.environments.base import Environment
from rft.errors import ConfigError
from rft.plugins import is_plugin, resolve, unknown_name

FIELD = "rollout.environment"
PACKAGES = {
    "gymnasium": "gymnasium",
    "openenv": "openenv-core",
    "reasoning_gym": "reasoning-gym",
    "textarena": "textarena",
}
ADAPTERS: dict[str, tuple[str, str]] = {
    name: (f"rft.environments.adapters.{name}", package) for name, package in PACKAGES.items()
}
"""By the part of the name before the colon: the adapter's module and the package that it adapts. An adapter's module
has a function ``make(name, options)``, which gets what stands after the colon."""
OWN = "package.module:Class"


def open_environment(name: str, options: Mapping[str, Any]) -> Environment:
    """Return a new environment. Raises ConfigError if there is none of that name, and whatever its code raises."""
    kind, colon, rest = name.partition(":")
    if colon and kind in ADAPTERS:
        module, package = ADAPTERS[kind]
        try:
            adapter = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{FIELD} = {name!r} needs {error.name}; install it: pip install {package}") from error
        made: Environment = adapter.make(rest, options)
        return made
    if not is_plugin(name):
        raise ConfigError(f"{FIELD} = {unknown_name(name, [*(f'{kind}:<name>' for kind in ADAPTERS), OWN])}")
    environment: Environment = resolve(FIELD, name, {})(**options)
    for method in ("reset", "step"):
        if not callable(getattr(environment, method, None)):
            raise ConfigError(f"{FIELD} = {name!r} has no method {method!r}; see rft/environments/base.py")
    return environment
