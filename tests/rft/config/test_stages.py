"""Each stage has its own configuration, which is checked before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli import main
from infra.launcher.role_set import role_arguments
from infra.launcher.staging import one_stage
from rft.config import Config
from rft.config_sources import load_config
from rft.errors import ConfigError
from rft.weights.version_folders import versions_root

TOML = """
[run]
name = "two"
folder = "{folder}"
[trainer]
learning_rate = 0.5
[[stages]]
name = "first"
run = {{ mode = "train" }}
trainer = {{ steps = 3 }}
eval = {{ tasks = 0 }}
[[stages.imports]]
name = "experts"
path = "x.jsonl"
[[stages]]
name = "second"
trainer = {{ steps = 4 }}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(TOML.format(folder=tmp_path))
    return path


def test_a_stage_has_its_own_settings_and_folder_and_the_last_stages_weights(file: Path, tmp_path: Path) -> None:
    config = load_config(file)
    first, second = config.of_stage(0), config.of_stage(1, "weights/v3")
    assert (first.trainer.steps, first.trainer.learning_rate, first.run.mode) == (3, 0.5, "train")
    assert (second.trainer.steps, second.run.mode, second.policy.model) == (4, "online", "weights/v3")
    assert [source.name for source in first.imports] == ["experts"]
    assert first.run.path == tmp_path / "two" / "stages" / "1-first"
    assert not second.imports
    assert not second.stages


def test_the_command_line_can_set_a_value_of_a_stage_by_its_name(file: Path) -> None:
    config = load_config(file, ["--stages.second.trainer.steps", "9", "--trainer.learning_rate", "0.25"])
    assert config.of_stage(1).trainer.steps == 9
    assert config.of_stage(0).trainer.learning_rate == 0.25
    with pytest.raises(ConfigError, match="has none with name = 'third'; it has first, second"):
        load_config(file, ["--stages.third.trainer.steps", "9"])


def test_a_wrong_setting_of_a_stage_names_the_stage(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"second: .*trainer.steps: found 0"):
        load_config(file, ["--stages.second.trainer.steps", "0"])
    with pytest.raises(ConfigError, match=r"second: the command line: trainer.steps: found 0"):
        load_config(file, ["--stages.second.trainer.steps", "0"], {"RFT_TRAINER__STEPS": "5"})
    with pytest.raises(ConfigError, match="broker cannot be set for a stage"):
        load_config(file, ["--stages.second.broker.kind", "kafka"])
    with pytest.raises(ConfigError, match="unknown key 'trainr'"):
        load_config(file, ["--stages.second.trainr.steps", "1"])


def test_a_preset_acts_in_a_stage_as_at_the_top(file: Path) -> None:
    dapo = load_config(file, ["--stages.second.algorithm.name", "dapo"])
    assert [dapo.of_stage(index).processor.drop_uniform_groups for index in (0, 1)] == [False, True]
    first = load_config(file, ["--algorithm.name", "dapo", "--stages.first.algorithm.name", "sft"])
    assert [first.of_stage(index).processor.drop_uniform_groups for index in (0, 1)] == [False, True]


@pytest.mark.parametrize("prefix", ["", "stages.second."])
def test_a_value_that_the_user_sets_overrides_a_preset_of_a_stage(file: Path, prefix: str) -> None:
    words = ["--stages.second.algorithm.name", "dapo", f"--{prefix}processor.drop_uniform_groups", "false"]
    assert not load_config(file, words).of_stage(1).processor.drop_uniform_groups


def test_a_text_for_a_stage_is_read_as_its_field_needs_it_and_can_unset_a_value(file: Path) -> None:
    words = ["--processor.max_response_tokens", "9", "--stages.second.processor.max_response_tokens", "none"]
    config = load_config(file, [*words, "--stages.second.policy.model", "2024"])
    assert [config.of_stage(index).processor.max_response_tokens for index in (0, 1)] == [9, None]
    assert config.of_stage(1).policy.model == "2024"
    named = load_config(file, [], {"RFT_STAGES__SECOND__POLICY__MODEL": "7"})
    assert named.of_stage(1).policy.model == "7"


def test_the_mode_decides_who_runs(file: Path) -> None:
    config = load_config(file)
    assert set(role_arguments(config.of_stage(0))) == {"archiver", "importer", "trainer", "processor-0"}
    assert set(role_arguments(config.of_stage(1))) == {"archiver", "trainer", "explorer-0", "processor-0", "conductor"}
    for mode in ("explore", "eval"):
        assert set(role_arguments(load_config(file, ["--stages.second.run.mode", mode]).of_stage(1))) == {
            "archiver", "explorer-0", "processor-0", "conductor",
        }  # fmt: skip


def write_run(config: Config, version: int) -> None:
    """Leave what a stage leaves that was started."""
    config.run.path.mkdir(parents=True)
    (config.run.path / "config.resolved.toml").write_text("")
    (versions_root(config.run.path, config.trainer.model_key) / f"v{version:08d}").mkdir(parents=True)


def test_commands_use_the_last_stage_that_was_started_or_the_one_that_is_named(file: Path) -> None:
    config = load_config(file)
    assert one_stage(config, None) == config.of_stage(0)
    write_run(config.of_stage(0), 7)
    assert one_stage(config, None).run.name == "1-first"
    second = one_stage(config, "second")
    assert (second.run.name, Path(second.policy.model).name) == ("2-second", "v00000007")
    write_run(config.of_stage(1), 9)
    assert one_stage(config, None) == second
    assert one_stage(config, "first") == config.of_stage(0)
    with pytest.raises(ConfigError, match="--stage third: the configuration's stages are first, second"):
        one_stage(config, "third")


def test_a_stage_that_makes_no_weights_hands_on_the_model_that_it_ran_with(file: Path) -> None:
    """As `rft run` does it."""
    config = load_config(file, ["--stages.first.policy.model", "another"])
    assert one_stage(config, "second").policy.model == "another"


def test_a_command_line_may_name_the_stage(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of this run is missing, and the error names the stage."""
    for words, shown in (
        (["--stage", "second"], "2-second"),
        ([], "1-first"),
        (["--stage", "third"], "stages are first, second"),
        (["--stage"], "has no value"),
    ):
        monkeypatch.setattr("sys.argv", ["rft", "audit", str(file), *words])
        with pytest.raises(SystemExit):
            main()
        assert shown in "".join(capsys.readouterr())
