"""A run with only external rewards says that its evaluations have no scores, and shows no 0.0 %.

Evaluation groups do not wait for external rewards, so nobody has judged their answers.
"""

from __future__ import annotations

from io import StringIO

import pytest
from log_events import MadeUpLog, experience, scored, weights
from rich.console import Console

from consumers.report.measures import NOT_SCORED
from consumers.report.page import render
from consumers.report.reducer import READ_ORDER, RunReducer
from consumers.report.report_json import report_content
from consumers.tracker.point_reducer import PointReducer
from infra.launcher.progress import Progress
from infra.launcher.screen import screen
from infra.launcher.view import plain_line
from producers.conductor.core import Conductor
from producers.conductor.evaluation import evaluation_plans
from producers.conductor.pacing import Pace
from rft.config import Config
from rft.rewards.scorer import make_scorer
from rft.stream.actions import Received
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from schemas.codec import encode
from schemas.events import ScoredExperience
from tests.consumers.processors.processor_worker import experience as rollout

CONFIG = Config.model_validate(
    {
        "eval": {"tasks": 2},
        "trainer": {"steps": 1, "groups_per_step": 1},
        "processor": {"rewards": [], "external": {"required": ["human"]}},
    }
)


def released(experience_id: str, **fields: object) -> ScoredExperience:
    """What the processor makes of a held-out answer."""
    group_id = experience_id.rpartition("/")[0]
    one = rollout(0, 0, size=1, experience_id=experience_id, group_id=group_id, split="eval", **fields)
    event = Received(0, 0, group_id.encode(), encode(one))
    [action] = Pipeline(Rules(CONFIG.processor, make_scorer([]), fifo, 10**6)).receive(event, 0)
    return action.samples[0]  # type: ignore[union-attr]


def whole_log(**fields: object) -> MadeUpLog:
    log = MadeUpLog()
    log.add("weights", weights(0))
    for version in (0, 1):
        for number in range(2):
            group_id = f"eval-{version:08d}-{number:08d}"
            log.add("ready", released(f"{group_id}/0", **fields), key=group_id)
    log.add("weights", weights(1, final=True))
    return log


def views(log: MadeUpLog) -> tuple[str, str]:
    """Return the line and the screen of the launcher."""
    progress = Progress(CONFIG)
    for event in log.events:
        progress.feed(event)
    console = Console(file=StringIO(), width=160)
    console.print(screen("run", progress.facts(), (), 1.0))
    return plain_line(progress.facts(), (), 1.0), console.file.getvalue()  # type: ignore[attr-defined]


def test_the_live_view_says_that_it_is_not_scored() -> None:
    for text in views(whole_log()):
        assert NOT_SCORED in text
        assert "0.0%" not in text


def test_report_and_page_say_that_it_is_not_scored() -> None:
    log, reducer = whole_log(), RunReducer(CONFIG, "exact_match")
    reducer.add_all(log.of(*READ_ORDER))
    report = report_content(reducer.summary, CONFIG, wall_s=1.0, versions={})
    assert report["finished"] is True
    assert report["accuracy"] == {"before": None, "after": None, "tasks": 2, "scored": False}
    assert [(one["scored"], one["accuracy"], one["tasks"]) for one in report["evaluations"]] == [(False, None, 2)] * 2
    assert report["series"]["accuracy"] == []
    page = render(report, reducer.summary, CONFIG)
    assert page.count(NOT_SCORED) == 2, "in the first tile and above the chart"


def test_trackers_get_no_score_of_it() -> None:
    reducer = PointReducer(CONFIG)
    points = [point for event in whole_log().events for point in reducer.add(event)]
    assert [name for point in points for name in point.values if name.startswith("eval/")] == []


def test_the_conductor_counts_it_as_done_without_a_score() -> None:
    conductor = Conductor(Pace.from_config(CONFIG), evaluation_plans(CONFIG), CONFIG.trainer.model_key)
    conductor.caught_up()
    for event in whole_log().events:
        conductor.step(event.record())
    assert [(one.version, one.tasks, one.reward) for one in conductor.take_outcomes()] == [(0, 2, None), (1, 2, None)]
    assert conductor.done


@pytest.mark.parametrize("fields", [{"reward": 0.0}, {"reward": 1.0}])
def test_rewards_that_come_with_the_answers_are_scores(fields: dict[str, float]) -> None:
    for text in views(whole_log(**fields)):
        assert f"{fields['reward']:.1%}" in text
        assert "not scored" not in text


def test_answers_that_are_all_wrong_are_scored() -> None:
    log = MadeUpLog()
    log.add("weights", weights(0))
    for number in range(2):
        log.add("ready", scored(experience(f"eval-00000000-{number:08d}/0"), 0.0), key=f"eval-00000000-{number:08d}")
    for text in views(log):
        assert "0.0%" in text
