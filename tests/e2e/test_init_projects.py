"""Projects of ``rft init``, run as their pages say, with few steps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pipeline import RFT

from tests.infra.test_init import run_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("template", "settings", "report"),
    [
        ("math", ["--trainer.steps", "3", "--trainer.groups_per_step", "4"], "runs/math/report.html"),
        (
            "sft-then-grpo",
            ["--stages.imitate.trainer.steps", "3", "--stages.reinforce.trainer.steps", "2", "--eval.tasks", "10"],
            "runs/sft-then-grpo/stages/2-reinforce/report.html",
        ),
    ],
)
def test_a_new_project_runs_offline(template: str, settings: list[str], report: str, tmp_path: Path) -> None:
    run_in(tmp_path, RFT, "init", "project", "--template", template)
    project = tmp_path / "project"
    run_in(project, sys.executable, "make_data.py")
    output = run_in(project, RFT, "run", "run.toml", "--plain", "--log.partitions", "1", *settings)
    assert "held-out accuracy" in output
    assert (project / report).exists()
