"""A run in which nothing can be learned says so where the operator looks, and a hopeless one ends by itself."""

from __future__ import annotations

import resource

import pytest
from pipeline import settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_a_reward_that_raises_ends_the_run_once_with_its_cause(pipeline, tmp_path, tiny_model):
    run = pipeline(
        settings(
            tmp_path,
            tiny_model,
            processor={"rewards": [{"function": "tests.e2e.faulty_rewards:raises"}]},
            trainer={"steps": 200, "max_failed_groups": 8},
            eval={"tasks": 4},
        )
    )
    assert run.wait(150) == 1, run.tail()
    lines = run.output.read_text().splitlines()
    cause = "reward function tests.e2e.faulty_rewards:raises raised LookupError: the judge is not configured"
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
    assert "warning: no held-out answer got full marks before or after" in said
    assert len(run.report["learning"]) == 2


def test_a_disk_that_takes_no_more_is_named_on_the_screen(pipeline, tmp_path, tiny_model):
    """A limit on the size of the trainer's files stands for the disk. The run goes on when there is room again."""
    run = pipeline(settings(tmp_path, tiny_model, trainer={"steps": 200}, eval={"tasks": 4}))
    log = run.config.run.path / "logs" / "trainer.log"
    run.wait_until(lambda: log.exists() and "step 1/200" in log.read_text(), 120, "training")
    (trainer,) = run.role("trainer")
    unlimited = trainer.rlimit(resource.RLIMIT_FSIZE)
    trainer.rlimit(resource.RLIMIT_FSIZE, (70_000, unlimited[1]))  # enough for the notes, not for a version's weights
    run.wait_until(lambda: "error, trainer: cannot write weight version" in run.output.read_text(), 60, "error")
    run.wait_until(lambda: "which takes no weight version" in run.output.read_text(), 60, "wait")
    trainer.rlimit(resource.RLIMIT_FSIZE, unlimited)
    assert run.wait(240) == 0, run.tail()
    assert "File too large" in run.output.read_text()
    (note,) = [note for note in run.report["notes"] if "File too large" in note["text"]]
    assert (note["role"], note["level"]) == ("trainer", "error")
