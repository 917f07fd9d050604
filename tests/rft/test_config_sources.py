"""Configuration: three sources in order of strength, and errors that say what to change."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.config import ColumnsConfig, Config, ImportConfig, RewardTerm, StageConfig, TrainerOverrides
from rft.config_sources import load_config, masked, to_toml, unmasked_environment
from rft.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_each_source_is_stronger_than_the_one_before(tmp_path):
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
def test_a_command_line_word_that_is_no_setting_is_refused(tmp_path, words):
    with pytest.raises(ConfigError, match=r"--section\.field value|has no value"):
        load_config(write(tmp_path, ""), words)


def test_sasl_without_a_password_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs sasl_username and sasl_password"):
        load_config(write(tmp_path, '[broker]\nsecurity_protocol = "SASL_SSL"\n'))


def test_secrets_are_masked_for_people_kept_for_children_and_never_in_errors(tmp_path):
    path = write(tmp_path, '[broker]\nsasl_username = "me"\n')
    config = load_config(path, [], {"RFT_BROKER__SASL_PASSWORD": "12345"})
    assert "12345" not in to_toml(masked(config))
    assert "12345" not in repr(config)
    assert unmasked_environment(config) == {"RFT_BROKER__SASL_PASSWORD": "12345"}
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "[broker]\nsasl_password = 777333\n"))
    assert "777333" not in str(caught.value)


def test_the_resolved_tree_is_toml_that_loads_to_the_same_tree(tmp_path):
    config = load_config(
        write(tmp_path, '[tasks]\nprompt_template = "say \\"{word}\\"\\n>"\noptions = {a = [1, 2], b = {c = "d"}}\n')
    )
    again = load_config(write(tmp_path, to_toml(masked(config))))
    assert again == config


names = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), min_size=1, max_size=8)
scalars = st.one_of(
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])), st.integers(-(2**60), 2**60), st.booleans()
)
trees = st.recursive(
    scalars | st.lists(scalars, max_size=3), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(names, trees, max_size=4))
def test_any_tree_written_as_toml_reads_back_the_same(tree):
    assert tomllib.loads(to_toml(tree)) == tree


def test_every_field_is_documented_beside_itself():
    sections = {name: field.annotation for name, field in Config.model_fields.items()} | {"reward": RewardTerm}
    sections |= {"trainers": TrainerOverrides, "imports": ImportConfig, "columns": ColumnsConfig, "stages": StageConfig}
    bare = [
        f"{s}.{name}"
        for s, section in sections.items()
        for name, f in section.model_fields.items()
        if not f.description
    ]
    assert bare == []
