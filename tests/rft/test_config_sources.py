"""A configuration has three sources, each overrides the one before, and errors say what to change."""

from pathlib import Path

import pytest

from rft.config import ColumnsConfig, Config, ImportConfig, RewarderConfig, RewardTerm, StageConfig, TrainerOverrides
from rft.config_sources import load_config
from rft.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_each_source_overrides_the_one_before(tmp_path):
    path = write(tmp_path, "[trainer]\nsteps = 1\ngroups_per_step = 1\nsync_interval = 1\n")
    environ = {"RFT_TRAINER__STEPS": "2", "RFT_TRAINER__GROUPS_PER_STEP": "2", "RFT_REQUIRE": "kafka", "HOME": "/x"}
    config = load_config(path, ["--trainer.steps", "3", "--run.name=other"], environ)
    assert (config.trainer.steps, config.trainer.groups_per_step, config.trainer.sync_interval) == (3, 2, 1)
    assert config.run.name == "other"


def test_lists_and_tables_can_be_given_on_the_command_line(tmp_path):
    config = load_config(
        write(tmp_path, "[tasks.options]\nmin_word_len = 3\n"),
        ["--tasks.options.max-word-len", "6", "--processor.rewards", '[{function = "format", weight = 0.5}]'],
    )
    assert config.tasks.options == {"min_word_len": 3, "max_word_len": 6}
    assert config.processor.rewards[0].weight == 0.5


def test_an_unknown_key_names_file_key_and_what_is_allowed(tmp_path):
    path = write(tmp_path, "[trainer]\nlearning_rat = 1.0\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert str(path) in message
    assert "trainer.learning_rat" in message
    assert "Did you mean 'learning_rate'?" in message
    assert "groups_per_step" in message


def test_an_unknown_section_names_the_sections(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key 'trainr'.*Did you mean 'trainer'\?.*broker"):
        load_config(write(tmp_path, "[trainr]\nsteps = 1\n"))


def test_a_wrong_value_names_what_was_found_and_what_is_allowed(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, '[broker]\nkind = "rabbit"\n[trainer]\nsteps = -1\n'), [], {"RFT_EVAL__TASKS": "x"})
    message = str(caught.value)
    assert "broker.kind: found \"rabbit\"; input should be 'embedded', 'kafka' or 'external'" in message
    assert "trainer.steps: found -1; input should be greater than or equal to 1" in message
    assert 'the environment: eval.tasks: found "x"' in message


def test_a_missing_file_and_broken_toml_are_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"run\.toml: not valid TOML: .*line 1"):
        load_config(write(tmp_path, "[trainer\n"))


@pytest.mark.parametrize("words", [["trainer.steps", "1"], ["--trainer.steps"], ["--steps", "1"]])
def test_a_command_line_argument_that_is_not_a_setting_is_refused(tmp_path, words):
    with pytest.raises(ConfigError, match=r"--section\.field value|has no value"):
        load_config(write(tmp_path, ""), words)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("run.name", "2024", "2024"),
        ("run.name", "1e3", "1e3"),
        ("run.name", "2024-01-01", "2024-01-01"),
        ("run.name", '"2024"', "2024"),
        ("run.folder", "7", Path("7")),
        ("policy.openai.model", "3", "3"),
        ("algorithm.teacher", "true", "true"),
        ("tasks.prompt_template", "[1]", "[1]"),
        ("trainer.learning_rate", "1e-3", 1e-3),
        ("trainer.learning_rate", "1", 1.0),
        ("trainer.zero_stage", "3", 3),
        ("trainer.betas", "[0.5, 0.75]", (0.5, 0.75)),
        ("trainer.compile", "true", True),
        ("trainer.lora.target_modules", '["q_proj"]', ["q_proj"]),
        ("trainer.lora.target_modules", "all-linear", "all-linear"),
        ("tasks.options", "{size = 3}", {"size": 3}),
        ("tasks.options.size", "3", 3),
        ("trackers.use", '["jsonl"]', ("jsonl",)),
        ("processor.external.weights.judge", "2", None),
        ("processor.max_response_tokens", "5", 5),
        ("processor.max_response_tokens", "none", None),
        ("trainer.max_logprob_gap", "none", None),
        ("algorithm.advantage", "none", None),
        ("archive.enabled", "none", None),
        ("trackers.folder", "none", None),
        ("algorithm.correction", "none", "none"),
        ("algorithm.kl", "none", "none"),
        ("run.name", "none", "none"),
    ],
)
def test_a_text_is_read_as_its_field_needs_it_from_the_command_line_and_the_environment(tmp_path, key, text, value):
    path = write(tmp_path, "[processor.external]\nrequired = ['judge']\n")
    variable = "RFT_" + key.upper().replace(".", "__")
    for config in (load_config(path, [f"--{key}", text]), load_config(path, [], {variable: text})):
        if value is None and key.startswith("processor.external"):
            assert config.processor.external.weights == {"judge": 2}
            continue
        found = config
        for name in key.split("."):
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        assert found == value
        assert type(found) is type(value) or isinstance(value, Path)


def test_none_can_be_written_in_a_file_and_a_later_source_can_take_a_value_back(tmp_path):
    config = load_config(write(tmp_path, '[trainer]\nmax_logprob_gap = "none"\n[processor]\nmax_response_tokens = 9\n'))
    assert (config.trainer.max_logprob_gap, config.processor.max_response_tokens) == (None, 9)
    assert (
        load_config(tmp_path / "run.toml", ["--processor.max_response_tokens", "none"]).processor == Config().processor
    )
    with pytest.raises(ConfigError, match=r'trainer\.steps: found "none"; input should be a valid integer'):
        load_config(tmp_path / "run.toml", ["--trainer.steps", "none"])


def test_a_secret_is_never_parsed(tmp_path):
    for password in ("12", "none", '"x"'):
        config = load_config(write(tmp_path, '[broker]\nsasl_username = "me"\n'), ["--broker.sasl_password", password])
        assert config.broker.sasl_password.get_secret_value() == password


def test_sasl_without_a_password_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs sasl_username and sasl_password"):
        load_config(write(tmp_path, '[broker]\nsecurity_protocol = "SASL_SSL"\n'))


def test_every_field_is_documented_below_itself():
    sections = {name: field.annotation for name, field in Config.model_fields.items()} | {"reward": RewardTerm}
    sections |= {"trainers": TrainerOverrides, "imports": ImportConfig, "columns": ColumnsConfig, "stages": StageConfig}
    sections["rewarders"] = RewarderConfig
    bare = [
        f"{s}.{name}"
        for s, section in sections.items()
        for name, f in section.model_fields.items()
        if not f.description
    ]
    assert bare == []
