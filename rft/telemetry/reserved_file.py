"""Writes small files of a role's state that can still be written when the disk is full.

A file gets its whole size when it is first written, padded with spaces, and is overwritten in place afterwards. A
reader may meet a half-written one: it must take content that it cannot parse for absent, and read again.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_reserved(path: Path, content: bytes, size: int) -> None:
    """Write ``content`` into a file of ``size`` bytes, or of its own length if that is more. Raises OSError."""
    padded = content + b" " * (size - len(content))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        _create(path, padded)
        return
    try:
        if os.fstat(descriptor).st_size == len(padded):
            os.pwrite(descriptor, padded, 0)
            return
    finally:
        os.close(descriptor)
    _create(path, padded)


def _create(path: Path, content: bytes) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
