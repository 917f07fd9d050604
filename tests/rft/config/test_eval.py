"""Held-out sets inherit from the run, and contradictory ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft.config import Config
from rft.config_sources import load_config
from rft.errors import ConfigError
from rft.tasks import open_sources

WORDS = {"options": {"min_word_len": 3, "max_word_len": 4}, "prompt_template": "{word}>"}


def test_a_set_inherits_from_the_run_what_it_does_not_set() -> None:
    sets = Config.model_validate(
        {
            "tasks": WORDS,
            "rollout": {"max_tokens": 9},
            "eval": {
                "tasks": 40,
                "interim_tasks": 30,
                "sets": {
                    "sampled": {"samples": 6, "temperature": 0.7, "interim_tasks": 500},
                    "long": {"source": "reasoning_gym:spell_backward", "max_tokens": 20},
                },
            },
        }
    ).eval_sets
    assert list(sets) == ["held_out", "sampled", "long"]
    assert (sets["held_out"].samples, sets["held_out"].temperature, sets["held_out"].pass_at) == (1, 0.0, (1,))
    assert sets["sampled"].pass_at == (1, 2, 4, 6)
    assert sets["sampled"].interim_tasks == sets["sampled"].tasks == 100
    assert sets["sampled"].options == WORDS["options"]
    assert (sets["long"].options, sets["long"].prompt_template, sets["long"].max_tokens) == ({}, "{word}>", 20)


def test_eval_with_no_tasks_leaves_only_the_named_sets() -> None:
    config = Config.model_validate({"tasks": WORDS, "eval": {"tasks": 0, "sets": {"some": {"tasks": 3}}}})
    assert list(config.eval_sets) == ["some"]
    splits = open_sources(config)
    assert len(splits.held_out) == 0
    assert len(splits.sets["some"]) == 3


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[eval]\nsamples = 4", "samples = 4 with temperature = 0 would give the same answer"),
        ("[eval.sets.a]\nsamples = 2\ntemperature = 1\npass_at = [1, 3]", "pass_at = 3 needs at least as many samples"),
        ("[eval.sets.held_out]\ntasks = 3", "'held_out' is the set of"),
        ("[eval.sets.a]\nsample = 3", "Did you mean 'samples'"),
    ],
)
def test_a_contradictory_set_is_refused_by_name(toml: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_no_prompt_of_any_set_is_trained_on_even_if_its_template_differs() -> None:
    few = {"options": {"min_word_len": 3, "max_word_len": 3}, "prompt_template": "{word}>"}
    config = Config.model_validate(
        {"tasks": few, "eval": {"tasks": 50, "sets": {"asked": {"tasks": 400, "prompt_template": "Reverse {word}:"}}}}
    )
    splits = open_sources(config)
    asked = {splits.sets["asked"][n].prompt.removeprefix("Reverse ").removesuffix(":") for n in range(400)}
    trained = {splits.train[n].prompt.removesuffix(">") for n in range(1000)}
    assert len(asked) == 400
    assert not trained & asked
    assert not trained & {splits.held_out[n].prompt.removesuffix(">") for n in range(50)}


def test_a_listed_set_that_shares_prompts_with_listed_training_tasks_is_refused(tmp_path: Path) -> None:
    for name, words in (("train", "abcd"), ("other", "dxyz")):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"question": "{word}"}}\n' for word in words))
    config = Config.model_validate(
        {
            "tasks": {"source": f"jsonl:{tmp_path}/train.jsonl"},
            "eval": {"tasks": 1, "sets": {"other": {"source": f"jsonl:{tmp_path}/other.jsonl", "tasks": 4}}},
        }
    )
    with pytest.raises(ConfigError, match=r"tasks.source and eval.sets.other.source share 1 of 4 held-out prompts"):
        open_sources(config)
