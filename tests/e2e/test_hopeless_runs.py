"""A run in which nothing can be learned says so where the operator looks, and a hopeless one ends by itself."""

from __future__ import annotations

import pytest
from pipeline import settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_a_reward_that_raises_ends_the_run_once_with_its_cause(pipeline, tmp_path, tiny_model):
    run = pipeline(
        settings(
            tmp_path,
            tiny_model,
            processor={"rewards": [{"function": "tests.e2e.faulty_rewards:raises_unless_right"}]},
            trainer={"steps": 200, "max_failed_groups": 8},
            eval={"tasks": 4},
        )
    )
    assert run.wait(150) == 1, run.tail()
    lines = run.output.read_text().splitlines()
    cause = (
        "reward function tests.e2e.faulty_rewards:raises_unless_right raised LookupError: the judge is not configured"
    )
    assert any(
        line.startswith("error, processor-0: no reward: reward function ") and cause in line for line in lines
    ), run.tail()
    (failed,) = [line for line in lines if line.startswith("failed: ")]
    assert failed.startswith("failed: conductor: StarvationError: all of the ")
    assert cause in failed
    assert "restart" not in run.output.read_text()
    report = run.report
    assert (report["outcome"], report["finished"]) == ("failed", False)
    assert cause in report["cause"]
    assert next(note["role"] for note in report["notes"] if cause in note["text"]) == "processor-0"
    page = (run.config.run.path / "report.html").read_text()
    assert '<span class="badge no">failed</span>' in page
    assert "the judge is not configured" in page


def test_a_run_with_constant_rewards_ends_with_a_warning(pipeline, tmp_path, tiny_model):
    run = pipeline(
        settings(
            tmp_path,
            tiny_model,
            processor={"rewards": [{"function": "tests.e2e.faulty_rewards:constant"}]},
            trainer={"steps": 5},
            eval={"tasks": 8},
        )
    )
    assert run.wait(150) == 0, run.tail()
    said = run.output.read_text()
    assert "warning: none of the 5 steps had a gradient, so the weights did not change: every reward was 0.5." in said
    assert "warning: every held-out answer was wrong before and after" in said
    assert len(run.report["learning"]) == 2
