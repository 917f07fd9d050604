"""Tests of ``rft eval``: models by name, their results, and errors that name the available models."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from consumers.evaluation.generation import HeldOutEvaluator
from consumers.evaluation.models import find_models
from infra.cli import app
from rft.config import Config
from rft.config_sources import load_config
from rft.config_toml import masked, to_toml
from rft.errors import ConfigError
from rft.lora.base_model import write_merged_model
from tests.rft.policy.tiny_policy import make_adapters
from tests.synthetic import make_tiny_model


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The configuration of a run whose folder holds two versions and a checkpoint."""
    root = tmp_path_factory.mktemp("evaluation")
    make_tiny_model(root / "model")
    made = Config.model_validate(
        {
            "run": {"folder": str(root / "runs"), "name": "r"},
            "policy": {"model": str(root / "model")},
            "tasks": {"options": {"min_word_len": 3, "max_word_len": 5}, "prompt_template": "<3> <4>{word}"},
            "rollout": {"max_tokens": 4},
            "processor": {"rewards": [{"function": "tests.consumers.evaluation.test_evaluate_models:holds_token"}]},
            "eval": {"tasks": 5, "sets": {"sampled": {"tasks": 4, "samples": 3, "temperature": 1.0}}},
        }
    )
    for folder in ("weights/policy/v00000002", "weights/policy/v00000010", "checkpoints/policy/step-00000050"):
        shutil.copytree(root / "model", made.run.path / folder)
    (root / "run.toml").write_text(to_toml(masked(made)))
    return load_config(root / "run.toml")


def holds_token(response: str, answer: str | None) -> float:
    """Reward about half of the answers, depending on the response."""
    return float(len(response) % 2)


def names(config: Config, *requested: str) -> list[str]:
    return [model.name for model in find_models(config, requested)]


def run_eval(config: Config, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["eval", str(config.run.folder.parent / "run.toml"), *arguments])


def test_models_are_found_by_short_names_and_evaluated_once(config: Config) -> None:
    assert names(config, "start", "versions", "newest") == ["start", "v2", "v10"]
    assert names(config, "v10", "step-50", "checkpoints") == ["v10", "step-50"]
    assert names(config, config.policy.model, "start") == [config.policy.model]


def test_a_folder_of_adapters_is_a_model_that_answers_as_the_merged_one(config: Config, tmp_path: Path) -> None:
    adapters = make_adapters(Path(config.policy.model), tmp_path / "adapters", 1)
    merged = write_merged_model(adapters, tmp_path / "merged")
    outcome = run_eval(config, "--weights", str(adapters), "--weights", str(merged), "--weights", "start", "--json")
    assert outcome.exit_code == 0, outcome.output
    rows = {(row["model"], row["set"]): row for row in json.loads(outcome.stdout)["results"]}
    for set_name in ("held_out", "sampled"):
        first, second = (
            {name: value for name, value in rows[str(folder), set_name].items() if name not in ("model", "folder")}
            for folder in (adapters, merged)
        )
        assert first == second


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("v3", "holds these weight versions: v2, v10; older ones are deleted"),
        ("step-1", "holds these checkpoints: step-50"),
        ("nowhere/model", "is no model folder"),
    ],
)
def test_a_model_that_does_not_exist_is_refused_with_those_that_do(
    config: Config, requested: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        find_models(config, [requested])


def test_equal_weights_get_equal_results_in_json_table_and_plot(config: Config, tmp_path: Path) -> None:
    plot = tmp_path / "evaluation.svg"
    outcome = run_eval(config, "--weights", "v2", "--weights", "v10", "--json", "--plot", str(plot))
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(outcome.stdout)
    rows = {(row["set"], row["model"]): row for row in result["results"]}
    assert set(rows) == {(name, model) for name in ("held_out", "sampled") for model in ("v2", "v10")}
    for name in ("held_out", "sampled"):
        first, second = (
            {key: value for key, value in rows[name, model].items() if key not in ("model", "folder")}
            for model in ("v2", "v10")
        )
        assert first == second
    assert rows["held_out", "v2"]["tasks"] == 5
    assert rows["sampled", "v2"]["answers"] == 12
    assert set(rows["sampled", "v2"]["pass_at"]) == {"1", "2", "3"}
    marks = [node for node in ElementTree.parse(plot).iter() if node.tag.endswith("circle")]
    assert len(marks) == 4
    outcome = run_eval(config, "--set", "sampled", "--weights", "v2")
    assert "sampled" in outcome.stdout
    assert "pass@3" in outcome.stdout
    assert "held_out" not in outcome.stdout


def test_the_sampled_answers_to_one_task_differ(config: Config) -> None:
    tally = HeldOutEvaluator(config, ["sampled"]).tallies(Path(config.policy.model))["sampled"]
    assert any(0 < answers.share < 1 for answers in tally.tasks.values())


def test_an_unknown_set_is_refused(config: Config) -> None:
    outcome = run_eval(config, "--set", "other")
    assert isinstance(outcome.exception, ConfigError)
    assert "held_out, sampled" in str(outcome.exception)
