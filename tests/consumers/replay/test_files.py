"""Files of events are whole or absent."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from picked_events import picked
from rich.console import Console

from consumers.replay.errors import ReplayError
from consumers.replay.fields import FILTERABLE, ROW, Picked
from consumers.replay.files import write_file
from infra.commands.stages import Stages


def failing() -> Iterator[Picked]:
    yield picked(0)
    raise ReplayError("the log ends here")


@pytest.mark.parametrize("suffix", ["jsonl", "avro", "parquet"])
def test_an_error_on_the_way_leaves_the_older_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"events.{suffix}"
    assert write_file(path, [picked(0), picked(1)]) == 2
    before = path.read_bytes()
    with pytest.raises(ReplayError, match="the log ends here"):
        write_file(path, failing())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["jsonl", "avro", "parquet"])
def test_nothing_selected_is_a_file_without_events(tmp_path: Path, suffix: str) -> None:
    assert write_file(tmp_path / f"none.{suffix}", []) == 0
    assert (tmp_path / f"none.{suffix}").exists()


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReplayError, match=r"cannot write .*events\.jsonl"):
        write_file(tmp_path / "file" / "events.jsonl", [])


def test_parquet_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ReplayError, match=r"pip install 'stream-rft\[parquet\]'"):
        write_file(tmp_path / "events.parquet", [picked(0)])


def test_every_column_and_every_field_of_a_filter_has_a_value() -> None:
    event = picked(3, 1)
    assert {name: getter(event) for name, getter in ROW.items()}.keys() == ROW.keys()
    assert FILTERABLE["total_tokens"](event) == event.scored.experience.tokens.size
    assert all(isinstance(getter(event), (int, float, str, type(None))) for getter in FILTERABLE.values())


def test_progress_without_a_terminal_is_a_line_when_a_stage_ends() -> None:
    shown = io.StringIO()
    with Stages(Console(file=shown)) as stages:
        tell = stages("reading")
        for done in range(1, 1001):
            tell(done, 1000)
        tell(1000, 1000)
    assert shown.getvalue() == "reading: 1,000 of 1,000\n"
