"""Each tracker's own library writes to files here, and its own reader gives the points back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from rft.config import Config
from rft.errors import ConfigError
from rft.telemetry import opening
from rft.telemetry.base import Point
from rft.telemetry.opening import check_trackers, start_trackers

SECRET = "hunter2-and-more"
POINTS = [Point(step, {"train/loss": 1.0 / step, "train/reward_mean": step / 10}, 1000 * step) for step in (1, 2, 3)]
POINTS.append(Point(2, {"eval/held_out/accuracy": 0.25}, 3500))


def configure(tmp_path: Path, *use: str, **settings: object) -> Config:
    return Config.model_validate(
        {
            "run": {"folder": str(tmp_path), "name": "r"},
            "registry": {"url": "http://localhost:1", "username": "u", "password": SecretStr(SECRET)},
            "trackers": {"use": use, **settings},
        }
    )


def send(config: Config, points: list[Point] = POINTS) -> Path:
    threads = start_trackers(config)
    for point in points:
        for thread in threads:
            thread.put(point)
    for thread in threads:
        assert thread.close(60), thread.name
    return config.run.path / "trackers"


def assert_no_secret(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_jsonl_holds_the_run_and_each_point_once_when_points_come_twice(tmp_path: Path) -> None:
    config = configure(tmp_path, "jsonl")
    for _ in range(2):
        folder = send(config)
    head, *lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert head["run"] == "r"
    assert head["config"]["registry"]["password"] == "**********"
    assert [(line["step"], line.get("train/loss")) for line in lines] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (2, None)]
    assert_no_secret(folder)


def test_tensorboard_shows_each_point_once_when_points_come_twice(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = configure(tmp_path, "tensorboard")
    for _ in range(2):
        folder = send(config)
    reader = event_accumulator.EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=True)
    reader.Reload()
    found = [(event.step, event.value, event.wall_time) for event in reader.Scalars("train/loss")]
    assert found == [(1, 1.0, 1.0), (2, 0.5, 2.0), (3, pytest.approx(1 / 3), 3.0)]
    assert [event.step for event in reader.Scalars("eval/held_out/accuracy")] == [2]
    assert "config/text_summary" in reader.Tags()["tensors"]
    assert_no_secret(folder)


def test_mlflow_has_one_run_with_its_parameters_and_each_value_once(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    config = configure(tmp_path, "mlflow", project="words")
    send(config, POINTS[:2])
    folder = send(config)
    client = mlflow.MlflowClient((folder / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("words")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert run.data.params["trainer.steps"] == "100"
    assert run.data.params["registry.password"] == "**********"
    assert run.info.status == "FINISHED"
    assert_no_secret(folder)


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log with 7 bytes before them, which wandb's files are."""
    block, at, parts = 32768, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_writes_its_offline_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    wandb_records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    folder = send(configure(tmp_path, "wandb", wandb_mode="offline"))
    (file,) = folder.rglob("*.wandb")
    deadline = time.monotonic() + 60  # a process of wandb's own writes the file, a moment after the run is finished
    losses: list[tuple[float, float]] = []
    while len(losses) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
        losses, config = [], {}
        for data in leveldb_records(file.read_bytes()):
            record = wandb_records.Record.FromString(data)
            values = {"/".join(one.nested_key): json.loads(one.value_json) for one in record.history.item}
            if "train/loss" in values:
                losses.append((values["step"], values["train/loss"]))
            config |= {item.key: item.value_json for item in record.run.config.update}
    assert losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert json.loads(config["registry"])["password"] == "**********"
    assert_no_secret(folder)


def test_a_tracker_that_cannot_be_opened_does_not_keep_points_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "r" / "trackers" / "tensorboard").mkdir(parents=True)
    (tmp_path / "r" / "trackers" / "metrics.jsonl").mkdir()
    threads = {thread.name: thread for thread in start_trackers(configure(tmp_path, "jsonl", "tensorboard"))}
    for point in POINTS:
        for thread in threads.values():
            thread.put(point)
    assert threads["tensorboard"].close(30)
    assert not threads["jsonl"].close(1)
    assert (threads["tensorboard"].sent, threads["jsonl"].sent) == (len(POINTS), 0)


def test_a_missing_library_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'stream-rft\[wandb\]'"):
        check_trackers(configure(tmp_path, "jsonl", "wandb"))
    check_trackers(configure(tmp_path, "jsonl"))
