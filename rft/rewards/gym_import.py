"""Imports one dataset of reasoning-gym. All of them take two seconds, with sympy and matplotlib; one takes none.

The package and its parts stand in ``sys.modules`` without their content, which is loaded as soon as anyone asks for
something of it. So whoever else imports reasoning-gym in this process, such as a user's module, finds all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "reasoning_gym"
COMPOSITE = "composite"
"""The dataset of the package itself, which is made of others."""
_REGISTERED = re.compile(r"""(?:^DATASET_NAME *= *|register_dataset\(\s*)["']([a-z0-9_]+)["']""", re.MULTILINE)
_lock = threading.RLock()


def import_dataset(name: str) -> None:
    """Import what ``reasoning_gym.factory`` needs to make the dataset ``name``.

    Imports all datasets if it is not known where this one is, and if they are imported already.
    """
    with _lock:
        there = sys.modules.get(PACKAGE)
        if there is not None and not isinstance(there, _Deferred):
            return
        file = _file_of(name)
        if file is None:
            _load_whole()
            return
        root = _defer(PACKAGE)
        module = ".".join([PACKAGE, *file.relative_to(Path(root.__path__[0])).with_suffix("").parts])
        _defer(module.rpartition(".")[0])
        importlib.import_module(module)


class _Deferred(ModuleType):
    """A package whose own code runs when something of it is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        own = f"{self.__name__}.{name}"
        if importlib.util.find_spec(own) is not None:
            return importlib.import_module(own)
        _load_whole()
        return getattr(sys.modules[self.__name__], name)


def _load_whole() -> None:
    """Import the package, and run the code of all deferred parts. The package itself comes last: it needs the parts."""
    with _lock:
        found = [module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE]
        deferred: list[ModuleType] = [module for module in found if isinstance(module, _Deferred)]
        for module in deferred:
            module.__class__ = ModuleType
        for module in sorted(deferred, key=lambda module: -module.__name__.count(".")):
            specification = module.__spec__
            assert specification is not None
            assert specification.loader is not None
            specification.loader.exec_module(module)
        importlib.import_module(PACKAGE)


def _defer(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.find_spec(name)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    module.__class__ = _Deferred
    sys.modules[name] = module
    return module


def dataset_names() -> frozenset[str]:
    """Return the names of all datasets, without importing them if their files name them."""
    there = sys.modules.get(PACKAGE)
    if (there is None or isinstance(there, _Deferred)) and (found := _files()):
        return frozenset(found) | {COMPOSITE}
    _load_whole()
    return frozenset(importlib.import_module(f"{PACKAGE}.factory").DATASETS)


def _file_of(name: str) -> Path | None:
    """Return the file of a part that registers the dataset ``name``; None if there is none, or if it needs others."""
    file = _files().get(name)
    return None if file is None or "create_dataset(" in file.read_text("utf-8") else file


@cache
def _files() -> Mapping[str, Path]:
    """Return the file that registers each dataset, by the dataset's name."""
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None or not specification.submodule_search_locations:
        return {}
    root = Path(specification.submodule_search_locations[0])
    return {
        name: file
        for file in sorted(root.glob("*/**/*.py"))
        if "register_dataset(" in (text := file.read_text("utf-8"))
        for name in _REGISTERED.findall(text)
    }
