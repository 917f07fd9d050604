"""Folders that are whole or absent, whatever kills the process that writes them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ends the name of a folder that is being written; with REMOVED, nobody but :func:`remove_leftovers` looks at it."""
REMOVED = ".removed"


@contextmanager
def whole_folder(target: Path, *, durable: bool) -> Iterator[Path]:
    """Write into the folder that this yields; when the block ends without an error it becomes ``target`` at once.

    After an error, or a kill, ``target`` is as it was. An existing ``target`` is replaced. ``durable`` also
    survives the machine's power failing: every file and folder is synced before the rename, the parent after it.
    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if durable:
            _sync_tree(partial)
        if target.exists():
            remove_folder(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if durable:
        _sync(target.parent)


def write_files(target: Path, files: Mapping[str, bytes | memoryview], *, durable: bool) -> None:
    """``target`` becomes a folder of ``files``, by path within it; see :func:`whole_folder`. Raises OSError."""
    with whole_folder(target, durable=durable) as partial:
        for name, content in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)


def not_written(error: OSError, place: Path, files: Mapping[str, bytes | memoryview]) -> str:
    """Why ``files`` could not be written at ``place``, and what would be needed, for an error message."""
    size = sum(len(content) for content in files.values())
    return f"{error.strerror or error}; {describe_disk(place)}, {size / 2**20:,.1f} MiB needed"


def remove_folder(folder: Path) -> None:
    """Delete ``folder``, which is gone at once: a kill halfway leaves no folder with some of its files missing.

    Another thread may be deleting it as well.
    """
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}{REMOVED}")
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Delete what killed writers left in ``parent``. Only for the one process that writes there."""
    for folder in parent.glob(".*"):
        if folder.name.endswith((PARTIAL, REMOVED)):
            shutil.rmtree(folder, ignore_errors=True)


def describe_disk(path: Path) -> str:
    """The disk that holds ``path`` and its free space, for an error message."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    mount = existing
    while mount != mount.parent and mount.stat().st_dev == mount.parent.stat().st_dev:
        mount = mount.parent
    space = shutil.disk_usage(existing)
    return f"disk {mount} ({space.free / 2**20:,.1f} MiB of {space.total / 2**20:,.1f} MiB free)"


def _sync_tree(folder: Path) -> None:
    for directory, _, files in os.walk(folder):
        for name in files:
            _sync(Path(directory, name))
        _sync(Path(directory))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
