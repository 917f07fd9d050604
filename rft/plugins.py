"""Resolves the names in the configuration that stand for functions: a shipped one, or ``package.module:function``.

Every such field goes through :func:`resolve`, so that a typo is answered in the same way everywhere: with the field,
the nearest name and all names that there are.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from rft.errors import ConfigError

T = TypeVar("T")
FORM = "package.module:function"
"""How a user's own function is named. A module may also be a file: ``folder/module.py:function``."""
FOLDERS_VARIABLE = "RFT_MODULE_FOLDERS"
"""Environment variable with the folders of :func:`add_folder`, which child processes inherit."""
OUR_PACKAGES = ("consumers", "infra", "producers", "rft", "schemas")
_FILE = ".py"


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
    """Return whether ``name`` has the form ``package.module:function`` or ``folder/module.py:function``."""
    module, colon, function = name.rpartition(":")
    is_module = module.endswith(_FILE) or all(part.isidentifier() for part in module.split("."))
    return bool(colon) and function.isidentifier() and is_module


USER_FAILURES: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What a user's function may raise without ending the process. ``sys.exit()`` in it is a failure like any other: in an
event loop, SystemExit would end the loop and leave the process."""


def error_text(error: BaseException) -> str:
    """Return the message of an error that a user's code raised. Its ``__str__`` may fail, too."""
    try:
        return str(error)
    except USER_FAILURES:
        return "without a message"


def add_folder(folder: Path) -> None:
    """Look for users' modules in ``folder``, too, in this process and in all that it starts.

    All libraries and the working directory come before it.
    """
    known = [Path(path) for path in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if path]
    if (found := folder.absolute()) not in known:
        os.environ[FOLDERS_VARIABLE] = os.pathsep.join(map(str, [*known, found]))


def _folders() -> list[Path]:
    """Return the working directory and the folders of :func:`add_folder`."""
    others = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)
    return list(dict.fromkeys([Path.cwd(), *(Path(path) for path in others if path)]))


def _load(written: str, name: str, near: str | None) -> Any:
    """Import the user's function. Its file needs no installation if it lies in one of :func:`_folders`."""
    module_name, _, function_name = name.rpartition(":")
    sys.path += [str(folder) for folder in _folders() if str(folder) not in sys.path]
    try:
        is_file = module_name.endswith(_FILE)
        module = _import_file(module_name) if is_file else importlib.import_module(module_name)
    # Importing runs the user's code, which may raise anything.
    except USER_FAILURES as error:
        hint = _import_hint(module_name, near) if isinstance(error, ModuleNotFoundError) else ""
        cause = f"{type(error).__name__}: {error_text(error)}{hint}"
        raise ConfigError(f"{written}: importing {module_name!r} failed: {cause}") from error
    function = getattr(module, function_name, None)
    if function is None:
        similar = nearest(function_name, vars(module))
        hint = f"; did you mean {similar!r}?" if similar else _shadowed(module_name)
        raise ConfigError(f"{written}: {module.__file__ or module_name} has no {function_name!r}{hint}")
    if not callable(function):
        raise ConfigError(f"{written}: is a {type(function).__name__}, not a function")
    return function


def _import_file(path: str) -> ModuleType:
    """Import a file by its path, relative to one of :func:`_folders`. Raises ModuleNotFoundError if there is none."""
    file = next((found for folder in _folders() if (found := folder / path).is_file()), None)
    if file is None:
        raise ModuleNotFoundError(f"there is no file {path} in {' or '.join(map(str, _folders()))}")
    # Named after its place, so that it replaces no module, and is imported once.
    name = f"{file.stem}_{zlib.crc32(str(file.resolve()).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_hint(module_name: str, near: str | None) -> str:
    if shadowed := _shadowed(module_name):
        return shadowed
    if near:
        return f"; did you mean {near!r}?"
    top = module_name.partition(".")[0]
    if not module_name.endswith(_FILE) and importlib.util.find_spec(top) is None:
        return f". A module is looked for in {' and '.join(map(str, _folders()))}"
    return ""


def _shadowed(module_name: str) -> str:
    """Return what to do if a package of the user has the name of one of ours, which is imported in its place."""
    top, *rest = module_name.split(".")
    if top not in OUR_PACKAGES:
        return ""
    ours = Path(__file__).parents[1]
    for folder in _folders():
        if folder != ours and ((folder / top).is_dir() or (folder / f"{top}.py").is_file()):
            file = Path(top, *rest).with_suffix(_FILE)
            return (
                f". {top!r} is a package of Stream-RFT, so yours in {folder} is not imported: rename it, or name the "
                f'file: "{file}:<function>"'
            )
    return ""
