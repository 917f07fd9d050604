"""Each wrong input names the key, what was found and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft.config_faults import USUAL_NAMES, annotation_of, known_names
from rft.config_sources import environment_layer, load_config
from rft.errors import ConfigError

INPUTS = [
    ("[trainer]\nlearning_rate = nan\n", r"trainer\.learning_rate: found NaN; input should be a finite number"),
    ("[trainer]\nlearning_rate = inf\n", r"trainer\.learning_rate: found Infinity; input should be a finite number"),
    ("[processor]\ngroup_deadline_s = inf\n", "found Infinity; input should be a finite number"),
    ("[[processor.rewards]]\nfunction = 'exact_match'\nweight = nan\n", "weight: found NaN"),
    ("[trainer]\nsteps = 100000000000000000000\n", r"trainer\.steps: found 1\d+, which is too large for any setting"),
    ("[trainer]\nsteps = true\n", r"trainer\.steps: found true, must be a number"),
    ("[rollout]\ntemperature = false\n", r"rollout\.temperature: found false, must be a number"),
    ("[run]\nseed = -1\n", r"run\.seed: found -1; input should be greater than or equal to 0"),
    ("[trainer]\nsteps = 3\nsteps = 4\n", "Cannot overwrite a value.*line 3.*is there twice"),
    ("[trainer]\nsteps = 3\n[trainer]\nlora = 4\n", "Cannot declare.*is there twice"),
    ("[trainer]\nlr = 1e-3\n", r"unknown key 'trainer\.lr'\. Did you mean 'trainer\.learning_rate'\?"),
    ("[rollout]\nnum_generations = 8\n", r"Did you mean 'rollout\.samples'\?"),
    ("[model]\nname = 'x'\n", r"unknown key 'model'\. Did you mean 'policy\.model'\?"),
    ("[trainer]\nstepps = 3\n", "Did you mean 'steps'"),
]


@pytest.mark.parametrize(("text", "message"), INPUTS)
def test_a_wrong_input_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_byte_order_mark_at_the_beginning_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("\ufeff[trainer]\nsteps = 3\n", encoding="utf-8")
    assert load_config(path).trainer.steps == 3


def test_a_variable_with_one_underscore_is_named_because_it_would_set_nothing() -> None:
    with pytest.raises(ConfigError, match=r"RFT_TRAINER_STEPS sets nothing\. Write RFT_TRAINER__STEPS"):
        environment_layer({"RFT_TRAINER_STEPS": "3"})
    with pytest.raises(ConfigError, match="Write RFT_BROKER__SASL_PASSWORD"):
        environment_layer({"RFT_BROKER_SASL_PASSWORD": "secret"})
    assert environment_layer({"RFT_REQUIRE": "kafka", "RFT_TRAINER_GOAL": "x", "RFT_RUN__SEED": "3"}) == {
        "run": {"seed": 3}
    }


TWO_IMPORTS = "".join(f"[[{{}}imports]]\nname = 'a'\npath = '{path}.jsonl'\n" for path in "xy")


def test_a_fault_of_several_settings_together_is_not_blamed_on_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TWO_IMPORTS.format("", ""))
    with pytest.raises(ConfigError, match=r"^\S*run\.toml: \[\[imports\]\]: two have the same name$"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"run\.toml and the command line: \[\[imports\]\]: two"):
        load_config(path, ["--trainer.steps", "3"])
    path.write_text("[[stages]]\nname = 'one'\n" + TWO_IMPORTS.format("stages.", "stages."))
    with pytest.raises(ConfigError, match=r"^\[\[stages\]\] one: \S*run\.toml: \[\[imports\]\]: two"):
        load_config(path)


@pytest.mark.parametrize("path", sorted(set(USUAL_NAMES.values())))
def test_what_usual_names_point_to_exists(path: str) -> None:
    key = tuple(path.split("."))
    assert key[-1] in known_names(key[:-1]), annotation_of(key)
