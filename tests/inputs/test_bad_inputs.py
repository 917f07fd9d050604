"""Whatever a new user may get wrong is said before the run, by name and with what to do, without loading torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.inputs.all_rows import ROWS
from tests.inputs.rows import Row
from tests.inputs.run_rows import write
from tests.inputs.small_model import make_small_model

ROOT = Path(__file__).parents[2]
TORCH = re.compile(r"\| +(torch|transformers)$", re.MULTILINE)
"""A line that Python writes about an import with PYTHONPROFILEIMPORTTIME."""


@dataclass(frozen=True)
class Answer:
    findings: list[tuple[str, str]]
    torch: bool


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_model(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def answers(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """Return the answer to each row. All are asked in one process, which has not loaded what pytest has."""
    folder = tmp_path_factory.mktemp("rows")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.inputs.run_rows", str(folder), str(model)],
        capture_output=True, text=True, timeout=280, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    given = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    return {name: Answer([tuple(one) for one in found], torch) for name, found, _, torch in given}


def environment() -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RFT_")}
    return {**plain, "PYTHONPATH": str(ROOT)}


def test_names_of_rows_are_unique() -> None:
    names = [row.name for row in ROWS]
    assert sorted(name for name in names if names.count(name) > 1) == []
    assert len(ROWS) >= 200


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_bad_input_is_named(row: Row, answers: dict[str, Answer]) -> None:
    answer = answers[row.name]
    told = [text for level, text in answer.findings if level == row.level and re.search(row.message, text, re.DOTALL)]
    assert told, "\n".join(f"{level} {text}" for level, text in answer.findings if level != "ok")
    assert not answer.torch
    if row.level == "warn":
        assert [text for level, text in answer.findings if level == "fail"] == []


def test_nothing_is_wrong_with_the_input_that_rows_spoil(model: Path, tmp_path: Path) -> None:
    from infra.preflight.gate import roles_of_run
    from infra.preflight.process import find
    from rft.config_sources import load_config

    config = load_config(write(Row("good", {}, ""), tmp_path, model))
    config = config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"model": str(tmp_path / "model")}),
            "tasks": config.tasks.model_copy(update={"source": f"jsonl:{tmp_path / 'tasks.jsonl'}"}),
            "run": config.run.model_copy(update={"folder": tmp_path / "runs"}),
        }
    )
    assert [finding for finding in find(config, roles_of_run(config)) if finding.level != "ok"] == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.real], ids=lambda row: row.name)
def test_the_real_command_says_it_and_starts_nothing(row: Row, model: Path, tmp_path: Path) -> None:
    config = write(row, tmp_path, model)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "infra.cli", row.command, str(config), *row.arguments],
        capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path,
        env={**environment(), **row.environ, "PYTHONPROFILEIMPORTTIME": "1"},
    )  # fmt: skip
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    said = done.stdout + "\n".join(line for line in done.stderr.splitlines() if line not in set(imports))
    assert re.search(row.message, said.replace("\n", " ")), said
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert imports
    assert not TORCH.search("\n".join(imports))
    assert not (tmp_path / "runs" / "run" / "logs").exists()


def test_what_an_earlier_stage_will_write_is_not_missed(model: Path, tmp_path: Path) -> None:
    from infra.preflight.checks import find_all
    from rft.config import Config

    archive = tmp_path / "runs" / "all" / "stages" / "1-collect" / "archive"
    learn = {"name": "learn", "run": {"mode": "train"}, "algorithm": {"name": "sft"}}
    imports = [{"name": "collected", "path": str(archive), "kind": "experiences"}]
    config = Config.model_validate(
        {
            "policy": {"model": str(model)}, "run": {"folder": str(tmp_path / "runs"), "name": "all"},
            "stages": [{"name": "collect"}, {**learn, "imports": imports}],
        }
    )  # fmt: skip
    assert [finding for finding in find_all(config.of_stage(1), ["importer"]) if finding.level == "fail"] == []
    elsewhere = config.model_copy(update={"stages": [config.stages[0]], "imports": config.of_stage(1).imports})
    elsewhere = elsewhere.model_copy(update={"run": config.run.model_copy(update={"folder": tmp_path / "other"})})
    (missing,) = [finding for finding in find_all(elsewhere, ["importer"]) if finding.level == "fail"]
    assert missing.what.startswith("[[imports]] collected: there is no")
