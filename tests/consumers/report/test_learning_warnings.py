"""A run that learned nothing says so, and rewards that are no shares are not called accuracy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from log_events import MadeUpLog, experience, scored, step, weights

from consumers.report.measures import correctness_function, score_text
from consumers.report.outcome import RunEnd
from consumers.report.page import render
from consumers.report.reducer import READ_ORDER, RunReducer
from consumers.report.report_json import report_content
from rft.config import Config
from rft.telemetry.notes import Note

TASKS = 10
CONFIG = Config.model_validate({"trainer": {"steps": 4}, "eval": {"tasks": TASKS}})


def run(before: list[float], after: list[float], **metrics: float) -> MadeUpLog:
    """Return the log of a finished run of four steps with these metrics, and these rewards of the held-out answers."""
    log = MadeUpLog()
    log.add("weights", weights(0))
    for number in range(1, 5):
        log.add("steps", step(number, {f"train-{number:08d}/0": 0}, **metrics))
    log.add("weights", weights(4, final=True))
    for version, rewards in ((0, before), (4, after)):
        for index, reward in enumerate(rewards):
            one = experience(f"eval-{version:08d}-{index:08d}/0")
            log.add("ready", scored(one, reward), key=one.group_id)
    return log


def report_of(log: MadeUpLog, **given: Any) -> tuple[dict[str, Any], str]:
    reducer = RunReducer(CONFIG, correctness_function(CONFIG.processor.rewards))
    reducer.add_all(log.of(*READ_ORDER))
    report = report_content(reducer.summary, CONFIG, wall_s=1.0, versions={}, **given)
    return report, render(report, reducer.summary, CONFIG)


HALF = [1.0, 0.0] * 5
MOSTLY = [1.0] * 9 + [0.0]


def test_a_run_that_learned_is_praised_without_warning() -> None:
    report, page = report_of(run([0.0] * TASKS, MOSTLY, grad_norm=1.0, reward_std=0.4))
    assert report["learning"] == []
    assert report["outcome"] == "finished"
    assert '<span class="gain">+90.0 points</span>' in page
    assert "What it learned" not in page


def test_steps_without_gradient_are_named_with_their_cause() -> None:
    report, page = report_of(run(HALF, HALF, grad_norm=0.0, reward_std=0.0, reward_mean=0.5))
    first = report["learning"][0]
    assert first.startswith(
        "none of the 4 steps had a gradient, so the weights did not change: every reward was 0.5. Choose tasks"
    )
    assert first in page.replace("&#x27;", "'")
    assert 'class="gain same">+0.0 points' in page


def test_steps_in_which_a_value_head_warms_up_are_not_idle() -> None:
    report, _ = report_of(run([0.0] * TASKS, MOSTLY, grad_norm=0.0, reward_std=0.5, value_warmup=1.0))
    assert report["learning"] == []


def test_uniform_groups_whose_rewards_differ_between_groups_are_not_called_constant() -> None:
    report, _ = report_of(run(HALF, HALF, grad_norm=0.0, reward_std=0.5, reward_mean=0.5))
    assert "within each group all rewards were equal" in report["learning"][0]


def test_gradients_that_are_not_finite_are_another_cause() -> None:
    report, _ = report_of(run(HALF, HALF, grad_norm=0.0, skipped=1.0, reward_std=0.5))
    assert "gradients were not finite. Lower trainer.learning_rate" in report["learning"][0]


def test_a_gradient_that_was_not_measured_is_not_called_absent() -> None:
    report, _ = report_of(run([0.0] * TASKS, MOSTLY))
    assert report["learning"] == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([0.0] * TASKS, [0.0] * TASKS, "no held-out answer got full marks before or after"),
        ([1.0] * TASKS, [1.0] * TASKS, "every held-out answer got full marks before and after"),
        (HALF, HALF, "changed by +0.0 points, with a standard error of 0.0: that is no change beyond noise"),
        (HALF, [1.0, 1.0, *HALF[2:]], "changed by +10.0 points, with a standard error of 10.0"),
    ],
)
def test_a_score_that_did_not_move_beyond_noise_says_so(before: list[float], after: list[float], said: str) -> None:
    (warning,) = report_of(run(before, after, grad_norm=1.0))[0]["learning"]
    assert said in warning


def test_rewards_outside_0_to_1_are_not_called_accuracy_or_percent() -> None:
    report, page = report_of(run([-1.5, 2.0] * 5, [3.0, 4.5] * 5, grad_norm=1.0))
    assert report["accuracy"] == {"before": None, "after": None, "tasks": TASKS, "scored": True}
    held_out = report["held_out"]
    assert (held_out["measure"], held_out["before"], held_out["after"]) == ("mean reward", 0.25, 3.75)
    assert held_out["noise"] == pytest.approx(math.sqrt((1.0**2 * 10) / 9 / 10), abs=1e-5)
    assert report["series"]["accuracy"] == []
    assert [(one["measure"], one["accuracy"], one["reward"]) for one in report["evaluations"]] == [
        ("mean reward", None, 0.25),
        ("mean reward", None, 3.75),
    ]
    assert "0.250 → 3.750" in page
    assert "+3.500" in page
    assert "ccuracy" not in page
    assert score_text(0.348, share=True) == "34.8%"


def test_one_evaluation_with_such_rewards_makes_all_of_the_set_rewards() -> None:
    report, page = report_of(run([0.0] * TASKS, [7.0] * TASKS, grad_norm=1.0))
    assert (report["held_out"]["measure"], report["held_out"]["before"]) == ("mean reward", 0.0)
    assert "Held-out reward" in page


def test_a_failed_run_is_called_failed_with_its_cause_and_escaped_notes() -> None:
    log = MadeUpLog()
    log.add("weights", weights(0))
    notes = {"processor-0": [Note("error", "no reward: <script>alert(1)</script>", 412, 0.0, 1.0)]}
    report, page = report_of(log, end=RunEnd("failed", "conductor: <b>broken</b>"), notes=notes)
    assert (report["outcome"], report["cause"]) == ("failed", "conductor: <b>broken</b>")
    assert '<span class="badge no">failed</span>' in page
    assert "conductor: &lt;b&gt;broken&lt;/b&gt;" in page
    assert "no reward: &lt;script&gt;" in page
    assert ">412<" in page
    assert "unfinished" not in page


def test_a_run_that_finished_in_the_end_is_not_called_failed() -> None:
    report, _ = report_of(run(HALF, MOSTLY, grad_norm=1.0), end=RunEnd("failed", "an earlier launch"))
    assert (report["outcome"], report["cause"]) == ("finished", "")
