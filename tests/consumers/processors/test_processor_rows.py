"""Samples of several rows go through a processor and a trainer on a real broker, and the audit balances."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from brokers import ConfigMaker
from processor_worker import committed, wait_for
from synthetic import make_tiny_model, read_all, scored

from consumers.audit.audit import audit
from consumers.trainer import run
from rft.config import Config
from rft.log.opening import open_log
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import Experience, ScoredExperience, TrainingStep

GROUPS, SIZE = 6, 3


def rows_of(number: int, sample: int, rows: int, attempt: int = 0) -> list[Experience]:
    """Return the rows of one try of a rollout. Their sample has the reward sample / 2."""
    group = f"train-{number:08d}"
    made = []
    for row in range(rows):
        one = scored(number, sample * 10 + row, SIZE).experience
        name = f"{group}/{sample}" if rows == 1 else f"{group}/{sample}/{row}"
        made.append(
            replace(one, experience_id=name, sample=sample, row=row, rows=rows, created_at=attempt, reward=sample / 2)
        )
    return made


def log_of_rows() -> list[Experience]:
    """Samples of one to three rows; some came after a try that broke off, some came twice, one lacks a row."""
    events: list[Experience] = []
    for number in range(GROUPS):
        for sample in range(SIZE):
            whole = rows_of(number, sample, 1 + (number + sample) % 3, attempt=2)
            if sample == 1:
                events += rows_of(number, sample, 4, attempt=1)[:2]
            events += whole[:-1] if (number, sample) == (GROUPS - 1, 2) else whole
            if sample == 2:
                events += whole
    last = rows_of(GROUPS - 1, 2, 1 + (GROUPS + 1) % 3, attempt=2)
    assert len(last) == 2
    return [one for one in events if one.experience_id != last[1].experience_id]


@pytest.mark.parametrize("required", [False, True])
def test_rows_are_joined_trained_once_and_accounted_for(
    any_broker: str, make_config: ConfigMaker, tmp_path, start_worker, required: bool
) -> None:
    model = make_tiny_model(tmp_path / "model")
    external = {"required": ["judge"], "deadline_s": 3} if required else {}
    config: Config = make_config(
        any_broker,
        run={"name": "rows", "folder": str(tmp_path)},
        policy={"model": str(model)},
        log={"partitions": 2},
        trainer={"steps": 3, "groups_per_step": 2, "max_staleness": 100, "learning_rate": 1e-2},
        processor={
            "group_deadline_s": 3,
            "rewards": [],
            "external": external | ({"on_missing": "default"} if required else {}),
        },
    )
    ensure_topics(config)
    events = log_of_rows()
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        for one in events:
            writer.send("experiences", one)
    wait_for(lambda: committed(config) == len(events), 30, lambda: worker.log)

    def ready() -> list[ScoredExperience]:
        return [record for record in read_all(config, "ready") if isinstance(record, ScoredExperience)]

    wait_for(lambda: len({one.experience.group_id for one in ready()}) == GROUPS, 30, lambda: worker.log)
    samples: dict[str, list[ScoredExperience]] = defaultdict(list)
    for one in ready():
        samples[one.experience.sample_id].append(one)
    assert len(samples) == GROUPS * SIZE
    lacking = f"train-{GROUPS - 1:08d}/2"
    for name, rows in samples.items():
        whole = name != lacking
        assert [one.experience.row for one in rows] == list(range(rows[0].experience.rows if whole else 1))
        assert {one.experience.created_at for one in rows} == {2}
        assert {one.cause for one in rows} == {None if whole else "rows_missing"}
        assert {one.reward for one in rows} == {rows[0].experience.sample / 2 if whole else 0.0}

    run(config, threading.Event())
    steps = [one for one in read_all(config, "steps") if isinstance(one, TrainingStep) and one.kind == "step"]
    trained = Counter(ref.experience_id for step in steps for ref in step.trained)
    assert trained == Counter(
        one.experience.experience_id for rows in samples.values() for one in rows if one.cause is None
    )
    for step in steps:
        order = [ref.experience_id.rpartition("/")[0] for ref in step.trained if ref.experience_id.count("/") == 2]
        assert len([a for a, b in pairwise(order) if a != b]) == len(set(order)) - 1
        assert step.metrics["groups"] == 2
    with open_log(config) as view:
        report = audit(config, view, dict.fromkeys(range(config.log.partitions), 10**9))
    assert report.ok, report.problems
    assert report.published.published == len(events)
    assert report.published.scored == report.trained[0].trained == sum(trained.values())
    assert report.published.filtered == {"rows_missing": 1}
    assert len(report.published.duplicates) == len(events) - sum(map(len, samples.values()))
