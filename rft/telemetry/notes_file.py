"""Keeps a role's notes in ``notes/<role>.json`` of the run's folder, where launcher and report read them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rft.telemetry.notes import Note, Notes, one_line
from rft.telemetry.reserved_file import write_reserved

FOLDER = "notes"
SIZE = 64 * 1024
"""Bytes of the file: enough for all notes of a role, in any script."""
MAX_FILES = 1000


class NotesFile:
    """Writes a role's notes. They begin with those of the process that this one replaces."""

    def __init__(self, run_path: Path, role: str, notes: Notes) -> None:
        """Reserve the file. Without a folder of the run, as in a cluster, nothing is written."""
        self._notes = notes
        self._written = -1
        self._path = run_path / FOLDER / f"{role}.json" if run_path.is_dir() else None
        if self._path is not None:
            notes.restore(_read(self._path))
            self.write()

    def write(self) -> None:
        """Write the notes if they have changed. Thread-safe."""
        changes = self._notes.changes
        if self._path is None or changes == self._written:
            return
        with contextlib.suppress(OSError):
            write_reserved(self._path, encode_notes(self._notes.all(), self._notes.left_out), SIZE)
            self._written = changes

    def close(self) -> None:
        """Write the notes for the last time. Without any, the file goes."""
        self.write()
        if self._path is not None and not self._notes.changes:
            with contextlib.suppress(OSError):
                self._path.unlink()


def encode_notes(notes: Iterable[Note], left_out: int) -> bytes:
    """Return the file's content. The newest notes are left out if they do not fit into its size."""
    kept = list(notes)
    while True:
        values = {"notes": [asdict(note) for note in kept], "left_out": left_out}
        content = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
        if len(content) <= SIZE:
            return content
        left_out += kept.pop().count


def read_notes(run_path: Path) -> dict[str, list[Note]]:
    """Return the notes of each role, by its name. Files that are absent or malformed are left out."""
    found = {}
    with contextlib.suppress(OSError):
        for path in sorted((run_path / FOLDER).glob("*.json"))[:MAX_FILES]:
            notes = _read(path)
            if notes:
                found[path.stem] = notes
    return found


def forget_notes(run_path: Path) -> None:
    """Remove the notes of an earlier launch."""
    with contextlib.suppress(OSError):
        for path in (run_path / FOLDER).glob("*.json"):
            path.unlink(missing_ok=True)


def _read(path: Path) -> list[Note]:
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(SIZE))
        return [note for each in values["notes"] if (note := _note(each)) is not None]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def _note(values: Mapping[str, Any]) -> Note | None:
    """Return a note if its fields have their types: it is shown on a terminal and in a page."""
    level, text, count = values["level"], values["text"], values["count"]
    times = values["first"], values["last"]
    if level not in ("warning", "error") or not isinstance(text, str) or not isinstance(count, int):
        return None
    if not all(isinstance(time, int | float) for time in times):
        return None
    return Note(level, one_line(text), count, *times)
