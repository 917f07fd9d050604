"""A configuration as TOML: readable by people, and read by roles as the very tree that the launcher had."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.launcher.folder import role_environment, write_config
from rft.config import Config
from rft.config_sources import load_config, unmasked_environment
from rft.config_toml import masked, resolved_toml, resolved_values, to_toml
from rft.errors import ConfigError

FULL: dict[str, Any] = {
    "run": {"name": "2024"},
    "algorithm": {"name": "dapo", "loss_options": {"a b": [1, {"c": 0.5}]}},
    "trainer": {"max_logprob_gap": "none", "min_reward": 0.5, "learning_rate": 1e-5},
    "processor": {"max_response_tokens": 7, "rewards": [{"function": "format", "options": {"pattern": '"\\n# x'}}]},
    "imports": [{"name": "experts", "path": "x.jsonl", "limit": "none", "columns": {"answer": "a"}}],
    "trainers": {
        "shadow.1": {"trainer": {"min_reward": "none"}, "algorithm": {"name": "grpo"}},
        "other": {"policy": {"model": "m"}},
    },
    "stages": [
        {"name": "warm", "run": {"mode": "train"}, "algorithm": {"name": "sft"}, "processor": {"min_group_size": 1}},
        {"name": "rl", "processor": {"max_response_tokens": "none"}, "trainer": {"lora": {"rank": 4}}},
    ],
    "eval": {"sets": {"sampled": {"samples": 4, "temperature": 1.0, "max_tokens": "none"}}},
    "broker": {"sasl_username": "me", "sasl_password": "hunter2"},
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("values", [{}, {"algorithm": {"name": "dapo"}}, FULL], ids=["empty", "dapo", "full"])
def test_a_role_reads_the_launchers_tree_with_what_was_set_kept_apart(values: dict[str, Any], tmp_path: Path) -> None:
    config = Config.model_validate(values)
    file = write_config(tmp_path, config)
    read = load_config(file, [], role_environment(config, {}, "trainer"))
    assert read == config
    assert "hunter2" not in file.read_text()
    for identity in config.trainers:
        assert read.of_trainer(identity) == config.of_trainer(identity)
    for index in range(len(config.stages)):
        assert read.of_stage(index, "weights") == config.of_stage(index, "weights")
    assert resolved_toml(read) == resolved_toml(config) or not values


def test_a_stage_hands_on_what_it_set_to_its_own_roles(tmp_path: Path) -> None:
    """A stage's run has no stages, but it may have further trainers."""
    stage = Config.model_validate(FULL).of_stage(1, "weights")
    read = load_config(write_config(tmp_path, stage), [], role_environment(stage, {}, "trainer"))
    assert read == stage
    assert (read.processor.drop_uniform_groups, read.processor.max_response_tokens) == (True, None)
    shadow = read.of_trainer("shadow.1")
    assert shadow == stage.of_trainer("shadow.1")
    assert (shadow.processor.drop_uniform_groups, shadow.trainer.min_reward) == (False, None)


def test_defaults_are_comments_that_people_can_read() -> None:
    text = resolved_toml(Config.model_validate({"trainer": {"steps": 100}, "algorithm": {"name": "dapo"}}))
    lines = text.splitlines()
    assert "steps = 100" in lines
    assert "# groups_per_step = 16" in lines
    assert "# drop_uniform_groups = true" in lines
    assert '# max_response_tokens = "none"' in lines
    assert tomllib.loads(text)["trainer"] == {"steps": 100, "lora": {}}


@pytest.mark.parametrize("values", [{}, FULL], ids=["empty", "full"])
def test_what_a_launch_resolved_to_can_be_compared_with_the_next(values: dict[str, Any]) -> None:
    config = Config.model_validate(values)
    assert resolved_values(resolved_toml(config)) == masked(config)
    assert resolved_values(to_toml(masked(config))) == masked(config)  # as the first release wrote it
    assert resolved_values("[gone]\nfield = 1\n") == {"gone": {"field": 1}}


def test_a_folder_of_the_first_release_in_which_every_field_counts_as_set_still_opens(tmp_path: Path) -> None:
    config = Config.model_validate({"algorithm": {"name": "dapo"}, "trainers": {"a": {"algorithm": {"name": "grpo"}}}})
    old = load_config(write(tmp_path, to_toml(masked(config))))
    assert old == config
    assert old.of_trainer("a").trainer == config.of_trainer("a").trainer


def test_the_whole_tree_is_toml_that_loads_to_the_same_tree(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, '[tasks]\nprompt_template = "say \\"{word}\\"\\n>"\noptions = {a = [1, 2], b = {c = "d"}}\n')
    )
    again = load_config(write(tmp_path, to_toml(masked(config))))
    assert again == config


def test_secrets_are_masked_for_people_passed_to_children_and_never_in_errors(tmp_path: Path) -> None:
    path = write(tmp_path, '[broker]\nsasl_username = "me"\n')
    config = load_config(path, [], {"RFT_BROKER__SASL_PASSWORD": "12345"})
    assert "12345" not in to_toml(masked(config))
    assert "12345" not in repr(config)
    assert unmasked_environment(config) == {"RFT_BROKER__SASL_PASSWORD": "12345"}
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "[broker]\nsasl_password = 777333\n"))
    assert "777333" not in str(caught.value)


names = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), min_size=1, max_size=8)
scalars = st.one_of(
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])), st.integers(-(2**60), 2**60), st.booleans()
)
trees = st.recursive(
    scalars | st.lists(scalars, max_size=3), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(names, trees, max_size=4))
def test_any_tree_written_as_toml_reads_back_the_same(tree: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(tree)) == tree
