"""A role's warnings and errors are kept once a kind, bounded, and reach the run's folder even on a full disk."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rft.telemetry.notes import MAX_NOTES, MAX_TEXT, NOTED, Note, NoteHandler, Notes
from rft.telemetry.notes_file import SIZE, NotesFile, encode_notes, forget_notes, read_notes


def ticking() -> Notes:
    times = iter(range(1000))
    return Notes(lambda: float(next(times)))


def test_what_differs_only_in_numbers_and_quoted_text_is_counted_as_one() -> None:
    notes = ticking()
    texts = [f"group {number} took {number / 7} s, '{number:c}'" for number in (65, 70, 999)]
    assert [notes.add("warning", text) for text in texts] == [1, 2, 3]
    notes.add("error", "group 3 took 1 s")
    first, second = notes.all()
    assert first == Note("warning", texts[-1], 3, 0.0, 2.0)
    assert (second.level, second.count) == ("error", 1)


def test_a_note_is_one_short_printable_line() -> None:
    notes = Notes()
    notes.add("error", "a\n\x1b[2J  b" + "x" * 10**7)
    (note,) = notes.all()
    assert note.text.startswith("a [2J bx")
    assert note.text.isprintable()
    assert len(note.text) <= MAX_TEXT


def test_the_kinds_are_bounded_and_an_error_takes_the_place_of_a_warning() -> None:
    notes = Notes()
    kinds = [chr(ord("a") + index // 26) + chr(ord("a") + index % 26) for index in range(MAX_NOTES + 5)]
    for kind in kinds:
        notes.add("warning", kind)
    assert [note.text for note in notes.all()] == kinds[:MAX_NOTES]
    assert notes.left_out == 5
    notes.add("error", "the disk is full")
    assert [note.text for note in notes.all()] == [*kinds[1:MAX_NOTES], "the disk is full"]
    assert notes.left_out == 6


def test_only_our_own_warnings_and_errors_are_notes() -> None:
    notes = Notes()
    handler = NoteHandler(notes)
    for name, level, text, extra in (
        ("rft", logging.WARNING, "ours", {}),
        ("producers.explorer.pool", logging.ERROR, "ours too", {}),
        ("rft", logging.INFO, "progress", {}),
        ("rft", logging.WARNING, "counted elsewhere", NOTED),
        ("kafka.conn", logging.ERROR, "closing socket", {}),
        ("rftish", logging.ERROR, "another package", {}),
    ):
        logger = logging.Logger(name)
        logger.addHandler(handler)
        logger.log(level, "%s", text, extra=extra)
    assert [(note.level, note.text) for note in notes.all()] == [("warning", "ours"), ("error", "ours too")]


def test_a_restarted_role_goes_on_with_the_notes_of_the_process_before(tmp_path: Path) -> None:
    before, after = ticking(), ticking()
    file = NotesFile(tmp_path, "trainer", before)
    before.add("error", "ValueError: 12 rows")
    file.write()
    again = NotesFile(tmp_path, "trainer", after)
    after.add("error", "ValueError: 13 rows")
    again.write()
    assert read_notes(tmp_path) == {"trainer": [Note("error", "ValueError: 13 rows", 2, 0.0, 0.0)]}
    forget_notes(tmp_path)
    assert read_notes(tmp_path) == {}


def test_a_role_without_notes_leaves_no_file(tmp_path: Path) -> None:
    file = NotesFile(tmp_path, "trainer", Notes())
    assert (tmp_path / "notes" / "trainer.json").stat().st_size == SIZE
    file.close()
    assert list((tmp_path / "notes").iterdir()) == []


def test_a_role_that_ends_leaves_its_notes_and_those_of_the_process_before(tmp_path: Path) -> None:
    notes = Notes()
    file = NotesFile(tmp_path, "trainer", notes)
    notes.add("warning", "slow")
    file.close()
    NotesFile(tmp_path, "trainer", Notes()).close()
    assert [note.text for note in read_notes(tmp_path)["trainer"]] == ["slow"]


def test_without_a_run_folder_nothing_is_written(tmp_path: Path) -> None:
    notes = Notes()
    NotesFile(tmp_path / "absent", "processor", notes).write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * SIZE,
        b'{"notes": [{"level": "error"}], "left_out": 0}',
        b'{"notes": [{"level": "loud", "text": "a", "count": 1, "first": 0, "last": 0}]}',
        b'{"notes": [{"level": "error", "text": 5, "count": 1, "first": 0, "last": 0}]}',
        b"[" * SIZE,
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_no_notes_file_gives_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "trainer.json").write_bytes(content)
    assert read_notes(tmp_path) == {}


def test_the_file_never_grows_beyond_its_size() -> None:
    notes = [Note("error", "\N{PILE OF POO}" * MAX_TEXT + str(index), 1, 0.0, 0.0) for index in range(MAX_NOTES * 2)]
    content = encode_notes(notes, 3)
    assert SIZE - 20 * MAX_TEXT < len(content) <= SIZE
    values = json.loads(content)
    assert values["left_out"] == 3 + len(notes) - len(values["notes"])


def test_notes_can_be_written_when_nothing_else_can(tmp_path: Path) -> None:
    """A process that may write no byte beyond the file's reserved size, as on a full disk, still writes its notes."""
    program = f"""
import errno, resource, signal
from pathlib import Path
from rft.telemetry.notes import Notes
from rft.telemetry.notes_file import NotesFile, SIZE
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
notes = Notes()
file = NotesFile(Path({str(tmp_path)!r}), "trainer", notes)
resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, SIZE))
try:
    Path({str(tmp_path / "other")!r}).write_bytes(bytes(SIZE + 1))
except OSError as error:
    assert error.errno == errno.EFBIG
    notes.add("error", "the disk is full")
file.write()
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ, timeout=60)
    assert [note.text for note in read_notes(tmp_path)["trainer"]] == ["the disk is full"]
