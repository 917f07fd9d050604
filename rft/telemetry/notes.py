"""Collects what a role's operator must know: its warnings and errors, each once, with a count.

A process runs one role, so there is one :class:`Notes`: :func:`role_notes` returns it. Every warning and error that our
own code logs becomes a note (:class:`NoteHandler`). Code that sees the same failure thousands of times counts it with
:meth:`Notes.add` and logs it rarely, with ``extra=NOTED``.

The memory is bounded: notes that differ only in numbers and quoted text are one, there are at most ``MAX_NOTES``, and
each is one line of at most ``MAX_TEXT`` characters.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["warning", "error"]
Kind = tuple[Level, str]

MAX_NOTES = 24
"""Notes of one role. Further ones are only counted."""
MAX_TEXT = 600
OWN_PACKAGES = ("rft", "producers", "consumers", "infra", "schemas")
"""Loggers whose warnings and errors are notes. What libraries warn of stays in the role's log."""
NOTED = {"noted": True}
"""``extra`` of a log line whose content was added to the notes already."""
_VARIABLE = re.compile(r"\d+(\.\d+)?|'[^']*'|\"[^\"]*\"")
"""What differs between lines of one kind: numbers and quoted text."""


@dataclass(frozen=True, slots=True)
class Note:
    """One warning or error, and how often it came."""

    level: Level
    text: str
    """One printable line: the newest of its kind."""
    count: int
    first: float
    """Unix time of the first one."""
    last: float
    """Unix time of the newest one."""


class Notes:
    """The notes of one role. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns Unix time."""
        self._clock = clock
        self._lock = threading.Lock()
        self._notes: dict[Kind, Note] = {}
        self.left_out = 0
        """Number of warnings and errors of which there is no note, because there were too many kinds."""
        self.changes = 0
        """Grows with every change."""

    def add(self, level: Level, text: str) -> int:
        """Count one warning or error, and return how often its kind has come."""
        line, now = one_line(text), self._clock()
        kind = kind_of(level, line)
        with self._lock:
            self.changes += 1
            known = self._notes.get(kind)
            if known is None and len(self._notes) >= MAX_NOTES and not self._make_room(level):
                self.left_out += 1
                return 0
            note = Note(level, line, 1, now, now)
            if known is not None:
                note = replace(known, text=line, count=known.count + 1, last=now)
            self._notes[kind] = note
            return note.count

    def restore(self, earlier: Collection[Note]) -> None:
        """Begin with the notes of the process that this one replaces."""
        with self._lock:
            self.changes += 1 if earlier else 0
            self._notes = {kind_of(note.level, note.text): note for note in earlier} | self._notes

    def all(self) -> list[Note]:
        """Return the notes in the order in which they first came."""
        with self._lock:
            return list(self._notes.values())

    def _make_room(self, level: Level) -> bool:
        """Drop the first warning for an error. Return whether there is room."""
        warning = next((kind for kind, note in self._notes.items() if note.level == "warning"), None)
        if level != "error" or warning is None:
            return False
        self.left_out += self._notes.pop(warning).count
        return True


class NoteHandler(logging.Handler):
    """Makes notes of the warnings and errors that our own code logs."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """Add the line to the notes, without its traceback."""
        if record.name.partition(".")[0] not in OWN_PACKAGES or getattr(record, "noted", False):
            return
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        try:
            self._notes.add(level, record.getMessage())
        except Exception:  # a faulty format must not end what logs it: logging reports it and goes on
            self.handleError(record)


def kind_of(level: Level, line: str) -> Kind:
    """Return what notes have in common that differ only in numbers and quoted text."""
    return level, _VARIABLE.sub("#", line)


def one_line(text: str, most: int = MAX_TEXT) -> str:
    """Return the text as one line without control characters, cut after ``most`` characters."""
    # Cut first: what a user's function raises may hold megabytes.
    line = "".join(char if char.isprintable() else " " for char in text[: 2 * most])
    line = " ".join(line.split())
    return line if len(line) <= most else line[: most - 2] + " …"


_lock = threading.Lock()
_notes: Notes | None = None


def role_notes() -> Notes:
    """Return the notes of this process's role."""
    global _notes
    with _lock:
        if _notes is None:
            _notes = Notes()
        return _notes
