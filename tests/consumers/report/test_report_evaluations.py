"""Tests of held-out sets in the report and the live view, from events in the log's order."""

from __future__ import annotations

import json

import pytest
from log_events import MadeUpLog, experience, scored, weights

from consumers.report.page import render
from consumers.report.reducer import READ_ORDER, RunReducer
from consumers.report.report_json import report_content
from infra.launcher.progress import Progress
from infra.launcher.view import plain_line
from rft.config import Config
from rft.evaluation.ids import EvalGroup

CONFIG = Config.model_validate(
    {
        "eval": {
            "tasks": 2,
            "sets": {"hard": {"tasks": 2, "samples": 2, "temperature": 1.0, "difficulty": "size"}},
        }
    }
)


def evaluate(log: MadeUpLog, version: int, name: str, right: list[list[bool]]) -> None:
    for number, row in enumerate(right):
        group_id = EvalGroup(version, number, name).group_id
        for sample, is_right in enumerate(row):
            answer = experience(
                f"{group_id}/{sample}", sample=sample, group_size=len(row), metadata=json.dumps({"size": number})
            )
            record = scored(answer, float(is_right))
            object.__setattr__(record, "release_size", len(row))
            log.add("ready", record, key=group_id)


@pytest.fixture
def log() -> MadeUpLog:
    log = MadeUpLog()
    log.add("weights", weights(0))
    evaluate(log, 0, "held_out", [[True], [False]])
    evaluate(log, 0, "hard", [[False, False], [False, True]])
    log.add("weights", weights(9, final=True))
    evaluate(log, 9, "held_out", [[True], [True]])
    evaluate(log, 9, "hard", [[True, False], [True, True]])
    return log


def test_the_report_has_every_set_with_pass_at_k_and_difficulty(log: MadeUpLog) -> None:
    reducer = RunReducer(CONFIG, "exact_match")
    reducer.add_all(log.of(*READ_ORDER))
    report = report_content(reducer.summary, CONFIG, wall_s=1.0, versions={})
    assert report["accuracy"] == {"before": 0.5, "after": 1.0, "tasks": 2, "scored": True}
    assert report["finished"]
    evaluations = {(each["set"], each["version"]): each for each in report["evaluations"]}
    assert set(evaluations) == {(name, version) for name in ("held_out", "hard") for version in (0, 9)}
    assert evaluations["hard", 9]["pass_at"] == {"1": 0.75, "2": 1.0}
    assert evaluations["hard", 0]["pass_at"] == {"1": 0.25, "2": 0.5}
    by_size = evaluations["hard", 9]["by_difficulty"]
    assert {name: figures["accuracy"] for name, figures in by_size.items()} == {"0": 0.5, "1": 1.0}
    page = render(report, reducer.summary, CONFIG)
    assert "pass@1 75.0%, pass@2 100.0%" in page
    assert "By difficulty: hard" in page
    assert "never solved" in page


def test_a_run_is_unfinished_while_one_answer_of_one_set_is_missing(log: MadeUpLog) -> None:
    last = log.events.pop()
    reducer = RunReducer(CONFIG, "exact_match")
    reducer.add_all(log.of(*READ_ORDER))
    assert not report_content(reducer.summary, CONFIG, wall_s=1.0, versions={})["finished"]
    reducer.add(last)
    assert report_content(reducer.summary, CONFIG, wall_s=1.0, versions={})["finished"]


def test_the_live_view_shows_each_set_and_waits_for_all_of_them(log: MadeUpLog) -> None:
    progress = Progress(CONFIG)
    last = log.events.pop()
    for event in log.events:
        progress.feed(event)
    assert progress.facts().phase == "final evaluation, 3 of 4 tasks"
    progress.feed(last)
    facts = progress.facts()
    assert facts.phase == "finishing"
    assert facts.accuracies == ((0, 0.5), (9, 1.0))
    assert facts.other_sets == {"hard": ((0, 0.25), (9, 0.75))}
    assert "held-out 100.0% (v9) | hard 75.0% (v9)" in plain_line(facts, [], 0.0)
