"""The examples that begin with data work, shortened, from file to weights, and their logs balance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pipeline import RFT

from rft.config_sources import load_config

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ["--eval.tasks", "10", "--log.partitions", "2"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def run(folder: Path, *arguments: str) -> str:
    """Run a command in ``folder`` and return its output. A failure shows it, and the ends of all roles' logs."""
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    logs = "\n".join(f"--- {log}\n{log.read_text()[-1500:]}" for log in folder.rglob("logs/*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    return done.stdout


def audit(stage: Path) -> dict[str, Any]:
    config = str(stage / "config.resolved.toml")
    output = run(stage, RFT, "audit", config, "--archive", str(stage / "archive"), "--json")
    found: dict[str, Any] = json.loads(output)
    return found


def test_a_run_in_stages_imitates_imported_demonstrations_then_reinforces_from_there(tmp_path: Path) -> None:
    """A finished stage is not repeated: only the second is resumed, whose report is missing as after a kill."""
    run(tmp_path, sys.executable, str(EXAMPLES / "quickstart" / "make_data.py"), "--demonstrations", "100")
    rft_run = [RFT, "run", str(EXAMPLES / "quickstart" / "quickstart.toml"), "--plain", *SHORT]
    rft_run += ["--stages.imitate.trainer.steps", "8", "--stages.imitate.trainer.groups_per_step", "25"]
    rft_run += ["--stages.imitate.buffer.reuse", "2", "--stages.imitate.eval.tasks", "0"]
    rft_run += ["--stages.reinforce.trainer.steps", "2", "--stages.reinforce.trainer.groups_per_step", "4"]
    run(tmp_path, *rft_run)
    root = tmp_path / "runs" / "quickstart"
    first, second = root / "stages" / "1-imitate", root / "stages" / "2-reinforce"
    (imitated,) = audit(first)["trained"]
    assert (imitated["trained"], imitated["reused"], imitated["steps"]) == (100, 100, 8)
    (reinforced,) = audit(second)["trained"]
    assert reinforced["steps"] == 2
    assert audit(first)["ok"]
    assert audit(second)["ok"]
    of_file = [RFT, "audit", str(EXAMPLES / "quickstart" / "quickstart.toml"), "--json", *SHORT]
    assert json.loads(run(tmp_path, *of_file))["trained"] == [reinforced]
    assert json.loads(run(tmp_path, *of_file, "--stage", "imitate"))["trained"] == [imitated]
    begun = (second / "weights" / "policy" / "v00000000" / "model.safetensors").read_bytes()
    assert begun == (first / "weights" / "policy" / "v00000008" / "model.safetensors").read_bytes()
    summary = json.loads((root / "stages.json").read_text())
    assert [(stage["name"], stage["steps"]) for stage in summary] == [("imitate", 8), ("reinforce", 2)]

    (second / "report.json").unlink()
    output = run(tmp_path, *rft_run)
    assert "stage 1 of 2, imitate: finished already" in output
    assert "stage 2 of 2, reinforce: from" in output
    assert begun == (second / "weights" / "policy" / "v00000000" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["quickstart", "stages", "mix", "dpo", "offline"])
def test_the_examples_configurations_are_valid(name: str) -> None:
    config = load_config(EXAMPLES / name / f"{name}.toml")
    assert config.imports or any(stage.overrides.get("imports") for stage in config.stages)
