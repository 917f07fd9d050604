"""Writes and removes folders so that they are whole or absent, whatever kills the process."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ends the name of a folder that is being written."""
REMOVED = ".removed"
"""Ends the name of a folder that is being deleted."""


@contextmanager
def atomic_folder(target: Path, *, durable: bool) -> Iterator[Path]:
    """Yield a folder to write into, which becomes ``target`` when the block ends without an error.

    An existing ``target`` is replaced; after an error or a kill it is unchanged. If ``durable``, the result also
    survives a power failure: every file and folder is synced before the rename, and the parent after it. Raises
    OSError.
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
    """Write ``files``, by path within it, as the folder ``target``; see :func:`atomic_folder`. Raises OSError."""
    with atomic_folder(target, durable=durable) as partial:
        for name, content in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)


def describe_write_failure(error: OSError, target: Path, files: Mapping[str, bytes | memoryview]) -> str:
    """Describe, for an error message, why ``files`` could not be written to ``target`` and how much space they need."""
    size = sum(len(content) for content in files.values())
    return f"{error.strerror or error}; {describe_disk(target)}, {size / 2**20:,.1f} MiB needed"


def remove_folder(folder: Path) -> None:
    """Delete ``folder`` atomically: a kill leaves no folder with some of its files missing.

    Another thread may delete it at the same time.
    """
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}{REMOVED}")
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Delete what killed writers have left in ``parent``. Only the one process that writes there may call it."""
    for folder in parent.glob(".*"):
        if folder.name.endswith((PARTIAL, REMOVED)):
            shutil.rmtree(folder, ignore_errors=True)


def describe_disk(path: Path) -> str:
    """Describe, for an error message, the disk that holds ``path`` and its free space."""
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
