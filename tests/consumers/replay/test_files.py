"""Tests that files of events are whole or absent."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from rich.console import Console
from selected_events import selected_event

from consumers.replay import ReplayError
from consumers.replay.files import write_file
from consumers.replay.selected_event import COLUMNS, FILTERABLE, SelectedEvent
from infra.commands.stages import Stages


def failing() -> Iterator[SelectedEvent]:
    yield selected_event(0)
    raise ReplayError("the log ends here")


@pytest.mark.parametrize("suffix", ["jsonl", "avro", "parquet"])
def test_an_error_while_writing_leaves_the_older_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"events.{suffix}"
    assert write_file(path, [selected_event(0), selected_event(1)]) == 2
    before = path.read_bytes()
    with pytest.raises(ReplayError, match="the log ends here"):
        write_file(path, failing())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["jsonl", "avro", "parquet"])
def test_an_empty_selection_gives_a_file_without_events(tmp_path: Path, suffix: str) -> None:
    assert write_file(tmp_path / f"none.{suffix}", []) == 0
    assert (tmp_path / f"none.{suffix}").exists()


def test_rewards_of_turns_and_by_name_are_in_files(tmp_path: Path) -> None:
    """A turn without a reward has null: JSON has no NaN."""
    event = selected_event(0, rewards={"human": 1.0})
    experience = replace(
        event.scored.experience,
        turn_rewards=np.array([0.5, np.nan], np.float32),
        rewards={"style": 0.25},
        experience_id="train-00000000/0/1",
        row=1,
        rows=2,
    )
    event = replace(event, scored=replace(event.scored, experience=experience))
    write_file(tmp_path / "events.jsonl", [event])
    line = json.loads((tmp_path / "events.jsonl").read_text())
    write_file(tmp_path / "events.parquet", [event])
    [row] = pyarrow.parquet.read_table(tmp_path / "events.parquet").to_pylist(maps_as_pydicts="strict")
    for found in (line, row):
        assert found["turn_rewards"] == [0.5, None]
        assert (found["rewards"], found["given_rewards"]) == ({"human": 1.0}, {"style": 0.25})
        assert (found["row"], found["rows"]) == (1, 2)


def test_an_error_names_the_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReplayError, match=r"cannot write .*events\.jsonl"):
        write_file(tmp_path / "file" / "events.jsonl", [])


def test_parquet_without_its_library_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ReplayError, match=r"pip install 'stream-rft\[parquet\]'"):
        write_file(tmp_path / "events.parquet", [selected_event(0)])


def test_every_column_and_every_field_of_a_filter_has_a_value() -> None:
    event = selected_event(3, 1)
    assert {name: getter(event) for name, getter in COLUMNS.items()}.keys() == COLUMNS.keys()
    assert FILTERABLE["total_tokens"](event) == event.scored.experience.tokens.size
    assert all(isinstance(getter(event), (int, float, str, type(None))) for getter in FILTERABLE.values())


def test_progress_without_a_terminal_is_a_line_when_a_stage_ends() -> None:
    shown = io.StringIO()
    with Stages(Console(file=shown)) as stages:
        progress = stages("reading")
        for done in range(1, 1001):
            progress(done, 1000)
        progress(1000, 1000)
    assert shown.getvalue() == "reading: 1,000 of 1,000\n"
