"""Held-out sets in the report and the live view, from events as they stand on the log."""

from __future__ import annotations

import json

import pytest
from log_events import MadeUpLog, experience, scored, weights

from consumers.report.page import render
from consumers.report.reducer import ORDER, StoryTeller
from consumers.report.summary import summarize
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
            one = experience(
                f"{group_id}/{sample}", sample=sample, group_size=len(row), metadata=json.dumps({"size": number})
            )
            record = scored(one, float(is_right))
            object.__setattr__(record, "release_size", len(row))
            log.add("ready", record, key=group_id)


@pytest.fixture
def log() -> MadeUpLog:
    made = MadeUpLog()
    made.add("weights", weights(0))
    evaluate(made, 0, "held_out", [[True], [False]])
    evaluate(made, 0, "hard", [[False, False], [False, True]])
    made.add("weights", weights(9, final=True))
    evaluate(made, 9, "held_out", [[True], [True]])
    evaluate(made, 9, "hard", [[True, False], [True, True]])
    return made


def test_the_report_has_every_set_with_pass_at_k_and_difficulty(log: MadeUpLog) -> None:
    teller = StoryTeller(CONFIG, "exact_match")
    teller.feed_all(log.of(*ORDER))
    report = summarize(teller.story, CONFIG, wall_s=1.0, versions={})
    assert report["accuracy"] == {"before": 0.5, "after": 1.0, "tasks": 2}
    assert report["finished"]
    found = {(one["set"], one["version"]): one for one in report["evaluations"]}
    assert set(found) == {(name, version) for name in ("held_out", "hard") for version in (0, 9)}
    assert found["hard", 9]["pass_at"] == {"1": 0.75, "2": 1.0}
    assert found["hard", 0]["pass_at"] == {"1": 0.25, "2": 0.5}
    by_size = found["hard", 9]["by_difficulty"]
    assert {name: one["accuracy"] for name, one in by_size.items()} == {"0": 0.5, "1": 1.0}
    page = render(report, teller.story, CONFIG)
    assert "pass@1 75.0%, pass@2 100.0%" in page
    assert "By difficulty: hard" in page
    assert "never solved" in page


def test_a_run_is_unfinished_while_one_answer_of_one_set_is_missing(log: MadeUpLog) -> None:
    last = log.events.pop()
    teller = StoryTeller(CONFIG, "exact_match")
    teller.feed_all(log.of(*ORDER))
    assert not summarize(teller.story, CONFIG, wall_s=1.0, versions={})["finished"]
    teller.feed(last)
    assert summarize(teller.story, CONFIG, wall_s=1.0, versions={})["finished"]


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
