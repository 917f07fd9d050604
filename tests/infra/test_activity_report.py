"""A role's reporter writes its file while the role works, logs long waits once a minute, and never harms the role."""

from __future__ import annotations

import json
import logging
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from infra import activity_report
from infra.activity_report import ActivityReport, LogSchedule
from rft.config import Config
from rft.telemetry.activity import Activity, ActivityState
from rft.telemetry.health import Health, health_file, read_health
from rft.telemetry.notes import Notes
from rft.telemetry.notes_file import NotesFile


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_report, "WRITE_EVERY_S", 0.02)


def make(folder: Path, activity: Activity, listen: str = "127.0.0.1:0") -> ActivityReport:
    config = Config.model_validate({"run": {"folder": str(folder), "name": "run"}, "telemetry": {"listen": listen}})
    notes = NotesFile(config.run.path, "explorer-0", Notes())
    return ActivityReport(
        config,
        "explorer-0",
        activity,
        notes,
        stopping=lambda: False,
        stalled=lambda: False,
    )


def wait_for(found: Callable[[], Health | None], good: Callable[[Health], bool]) -> Health:
    deadline = time.monotonic() + 30
    while (health := found()) is None or not good(health):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return health


def test_the_file_follows_the_role_names_the_address_and_goes_with_the_role(tmp_path):
    (tmp_path / "run").mkdir()
    path, activity = health_file(tmp_path / "run", "explorer-0"), Activity()
    with make(tmp_path, activity):
        assert wait_for(lambda: read_health(path), lambda health: True).state == "starting"
        activity.waits("tasks")
        health = wait_for(lambda: read_health(path), lambda health: health.state == "waiting")
        assert health.waits_for == "tasks"
        with urllib.request.urlopen(f"{health.url}/healthz", timeout=10) as answer:
            assert json.load(answer)["role"] == "explorer-0"
    assert list(path.parent.iterdir()) == []


def test_without_a_folder_of_the_run_none_is_made(tmp_path):
    with make(tmp_path, Activity(), "none") as report:
        time.sleep(0.1)
        assert report.health().url is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_once_and_written_when_it_can(tmp_path, caplog):
    run = tmp_path / "run"
    run.mkdir()
    (run / "health").write_text("in the way")
    with caplog.at_level(logging.WARNING), make(tmp_path, Activity()):
        time.sleep(0.3)
        (run / "health").unlink()
        wait_for(lambda: read_health(health_file(run, "explorer-0")), lambda health: True)
    assert caplog.text.count("the role's state cannot be written") == 1


def test_an_address_that_is_taken_is_named_and_the_role_goes_on_without(tmp_path, caplog):
    with make(tmp_path, Activity()) as first:
        url = first.health().url
        assert url is not None
        with make(tmp_path, Activity(), url.removeprefix("http://")) as second:
            assert second.health().url is None
    assert "health is not served: telemetry.listen" in caplog.text
    assert "port 0" in caplog.text


def test_a_wait_is_logged_once_a_minute_while_it_lasts():
    schedule, wait = LogSchedule(0), ActivityState("waiting", "tasks", 0.0, 1, 1.0, 0.0)
    lines = [schedule.line(second, replace(wait, since_s=float(second))) for second in range(200)]
    assert [line for line in lines if line] == [
        "waits for tasks since 60 s",
        "waits for tasks since 120 s",
        "waits for tasks since 180 s",
    ]
    assert not any(schedule.line(200 + second, replace(wait, since_s=second % 50)) for second in range(300))
    assert schedule.line(999, replace(wait, since_s=900.0, outage=True)) is None, "outages have lines of their own"
