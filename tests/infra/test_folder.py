"""The run's folder has one user at a time, and an earlier run in it is resumed or moved aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumers.report.outcome import RunEnd
from infra.launcher.folder import (
    LAUNCHES,
    Launch,
    RunFolderError,
    changed_keys,
    earlier_run,
    last_end,
    launches,
    locked,
    move_aside,
    plan,
    record_launch,
    role_environment,
    with_running_broker,
    write_config,
)
from rft.config import Config
from rft.config_sources import load_config


@pytest.mark.parametrize(
    ("kind", "earlier", "fresh", "todo"),
    [
        ("embedded", "none", False, "start"),
        ("embedded", "unfinished", False, "replace"),
        ("embedded", "finished", False, "replace"),
        ("kafka", "none", True, "start"),
        ("kafka", "unfinished", False, "resume"),
        ("kafka", "finished", False, "nothing_to_do"),
        ("kafka", "finished", True, "replace"),
        ("external", "unfinished", False, "resume"),
        ("external", "unfinished", True, "replace"),
    ],
)
def test_the_plan_for_an_earlier_run_depends_on_its_broker(kind, earlier, fresh, todo):
    assert plan(kind, earlier, fresh=fresh) == todo


def test_only_a_complete_report_makes_a_run_finished(tmp_path):
    assert earlier_run(tmp_path) == "none"
    write_config(tmp_path, Config())
    assert earlier_run(tmp_path) == "unfinished"
    for text, found in (('{"finished": false}', "unfinished"), ("{", "unfinished"), ('{"finished": true}', "finished")):
        (tmp_path / "report.json").write_text(text)
        assert earlier_run(tmp_path) == found


def test_only_one_launcher_at_a_time_holds_the_folder(tmp_path):
    again = pytest.raises(RunFolderError, match="another rft run")
    with locked(tmp_path / "run"), again, locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunFolderError, match=r"file/run cannot be written.*--run\.folder"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def test_moving_aside_never_overwrites_and_never_moves_the_model(tmp_path):
    model = tmp_path / "model"
    names = set()
    for _ in range(3):
        (tmp_path / "run").mkdir()
        names.add(move_aside(tmp_path / "run", model, now=0).name)
    assert len(names) == 3
    inside = tmp_path / "run" / "model"
    inside.mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"policy\.model"):
        move_aside(tmp_path / "run", inside, now=0)
    assert inside.exists()


def test_a_role_reads_the_resolved_configuration_whatever_the_environment_holds(tmp_path):
    config = Config.model_validate({
        "trainer": {"steps": 7, "betas": [0.5, 0.75]},
        "tasks": {"options": {"min_word_len": 3, "odd key": ["é", {"a": 1}]}},
        "broker": {
            "kind": "external", "bootstrap_servers": "k:1", "security_protocol": "SASL_SSL",
            "sasl_username": "me", "sasl_password": "hunter2",
        },
    })  # fmt: skip
    file = write_config(tmp_path, config)
    assert "hunter2" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    environ = role_environment(config, {"RFT_TRAINER__STEPS": "9", "PATH": "/bin", "RFT_REQUIRE": "kafka"}, "trainer")
    assert load_config(file, [], environ) == config
    assert environ["PATH"] == "/bin"
    assert environ["RFT_REQUIRE"] == "kafka"


def test_what_changed_since_the_last_launch_is_named(tmp_path):
    write_config(tmp_path, Config())
    after = Config.model_validate({"trainer": {"steps": 7}, "broker": {"bootstrap_servers": "k:2"}})
    assert changed_keys(tmp_path, Config()) == []
    assert changed_keys(tmp_path, after) == ["trainer.steps"]


def test_launches_are_recorded(tmp_path):
    recorded = [Launch(1.0, 2.5, 130), Launch(2.0, 3.5, 0)]
    assert launches(tmp_path) == []
    for launch in recorded:
        record_launch(tmp_path, launch)
    assert launches(tmp_path) == recorded
    assert all(json.loads(line) for line in (tmp_path / "launches.jsonl").read_text().splitlines())


def test_the_broker_of_a_run_in_progress_is_found_but_not_that_of_one_that_ended(tmp_path):
    config = Config.model_validate({"run": {"folder": str(tmp_path)}})
    broker = config.broker.model_copy(update={"bootstrap_servers": "127.0.0.1:5"})
    folder: Path = config.run.path
    folder.mkdir()
    write_config(folder, config.model_copy(update={"broker": broker}))
    assert with_running_broker(config).broker.bootstrap_servers is None
    with locked(folder):
        assert with_running_broker(config).broker.bootstrap_servers == "127.0.0.1:5"


def test_the_end_of_the_newest_launch_is_known_unless_another_one_goes_on(tmp_path):
    assert last_end(tmp_path) is None
    (tmp_path / LAUNCHES).write_text('{"started_at": 1.0, "wall_s": 2.0, "exit_code": 1}\n')  # as 0.1.0 wrote it
    assert last_end(tmp_path) == RunEnd("failed", "")
    record_launch(tmp_path, Launch(3.0, 4.0, 1, "trainer: OSError: no space"))
    assert last_end(tmp_path) == RunEnd("failed", "trainer: OSError: no space")
    with locked(tmp_path):
        assert last_end(tmp_path) is None
    record_launch(tmp_path, Launch(5.0, 6.0, 130))
    assert last_end(tmp_path) == RunEnd("interrupted", "")
    record_launch(tmp_path, Launch(7.0, 8.0, 0))
    assert last_end(tmp_path) is None
