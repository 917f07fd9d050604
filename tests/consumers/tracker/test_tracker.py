"""Tests of the points that trackers get from a run: one for each step and complete evaluation, live or archived."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from log_events import MadeUpLog, experience, scored, step, weights
from typer.testing import CliRunner

from consumers.archiver import run as archive
from consumers.tracker import run
from consumers.tracker.point_reducer import PointReducer
from infra.cli import app
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.evaluation.ids import EvalGroup
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import TrainingStep, WeightVersion

CONFIG = Config.model_validate({"eval": {"tasks": 2, "interim_tasks": 1, "every_versions": 1}})


def made_up() -> MadeUpLog:
    log = MadeUpLog()
    log.add("weights", weights(0))
    for version, right in ((0, (0.0, 1.0)), (1, (1.0,)), (2, (1.0, 1.0))):
        for number, reward in enumerate(right):
            one = experience(f"{EvalGroup(version, number).group_id}/0")
            log.add("ready", scored(one, reward), key=one.group_id)
        log.add("weights", weights(version, final=version == 2))
    for number in (1, 2, 2):
        log.add("steps", step(number, {f"a{number}/0": 0}, loss=number / 10))
    log.add("ready", b"garbage", key=EvalGroup(2, 0).group_id)
    return log


def points(log: MadeUpLog) -> list[tuple[int, str, float]]:
    reducer = PointReducer(CONFIG)
    found = [point for event in log.events for point in reducer.add(event)]
    names = ("train/loss", "eval/held_out/accuracy")
    return sorted((point.step, name, value) for point in found for name, value in point.values.items() if name in names)


def test_each_step_and_each_complete_evaluation_gives_one_point() -> None:
    found = points(made_up())
    assert [point for point in found if point[1] == "train/loss"] == [(1, "train/loss", 0.1), (2, "train/loss", 0.2)]
    assert [point[2] for point in found if point[1] != "train/loss"] == [0.5, 1.0, 1.0]


def test_topics_may_come_in_any_order_and_twice() -> None:
    expected = points(made_up())
    for seed in range(20):
        log = made_up()
        by_topic = {entity: log.of(entity) for entity in ("weights", "steps", "ready")}
        order = [entity for entity, events in by_topic.items() for _ in events]
        random.Random(seed).shuffle(order)
        log.events = [by_topic[entity].pop(0) for entity in order] + made_up().events
        # An evaluation of the final version may look complete, like one in between, before the version is known to be
        # the final one.
        steps = [point for point in points(log) if point[1] == "train/loss"]
        assert steps == [point for point in expected if point[1] == "train/loss"]
        assert len(points(log)) == len(expected)


def write(config: Config, first: int, last: int) -> None:
    model = config.trainer.model_key
    with EventWriter(config, "test") as writer:
        for number in range(first, last + 1):
            record = TrainingStep(
                model, "step", number, number - 1, number, (), (), (), "d", {"loss": number / 10}, 1000 * number
            )
            writer.send("steps", record)
        writer.send("weights", WeightVersion(model, last, last, "checkpoint", "w", "00", 1, False, 1))
        writer.flush()


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()[1:]] if path.exists() else []


def test_a_run_is_followed_and_its_archive_tracked_later(
    embedded_broker: str, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(
        embedded_broker,
        run={"folder": str(tmp_path / "runs")},
        log={"partitions": 2},
        eval={"tasks": 0},
        trackers={"use": ["jsonl"]},
    )
    ensure_topics(config)
    write(config, 1, 3)
    stop = threading.Event()
    role = threading.Thread(target=run, args=(config, stop))
    role.start()
    file = config.run.path / "trackers" / "metrics.jsonl"
    try:
        deadline = time.monotonic() + 60
        while lines(file) != [1, 2, 3] and time.monotonic() < deadline:
            time.sleep(0.1)
        write(config, 4, 5)
    finally:
        stop.set()
        role.join(60)
    assert not role.is_alive()
    assert lines(file) == [1, 2, 3, 4, 5], "what was on the log when the tracker was stopped is sent too"
    archive(config, threading.Event(), once=True)
    (tmp_path / "run.toml").write_text(to_toml(masked(config)))
    arguments = ["track", str(tmp_path / "run.toml"), "--archive", config.archive_url]
    result = CliRunner().invoke(app, [*arguments, "--trackers.folder", str(tmp_path / "later")])
    assert result.exit_code == 0, result.output
    assert "5 points" in result.output
    assert lines(tmp_path / "later" / "metrics.jsonl") == [1, 2, 3, 4, 5]
