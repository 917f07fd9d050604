"""One configuration can have several trainers: ``[trainers.<key>]``."""

import pytest

from rft.config import Config
from rft.config_sources import resolve
from rft.errors import ConfigError


def config(**trainers):
    tables = {"trainer": {"steps": 50, "learning_rate": 1e-3}, "trainers": trainers}
    return resolve([("run.toml", tables)])


def test_a_further_trainer_differs_from_the_main_one_only_in_what_it_overrides():
    main = config(shadow={"trainer": {"learning_rate": 1e-4}, "algorithm": {"name": "sft"}, "policy": {"model": "m"}})
    shadow = main.of_trainer("shadow")
    assert (shadow.trainer.steps, shadow.trainer.learning_rate) == (50, 1e-4)
    assert (shadow.trainer.model_key, shadow.trainer.follows) == ("shadow", "policy")
    assert (shadow.algorithm.name, shadow.policy.model) == ("sft", "m")
    assert shadow.tasks == main.tasks
    assert main.of_trainer("policy") is main
    assert main.trainer.follows is None


def test_an_unknown_identity_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ConfigError, match="no trainer 'shadw'; the configuration has policy, shadow"):
        config(shadow={}).of_trainer("shadw")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"trainer": {"learningrate": 1}},
            "unknown key 'trainers.shadow.trainer.learningrate'. Did you mean 'learning_",
        ),
        ({"trainer": {"steps": 0}}, "run.toml: trainers.shadow.trainer.steps: found 0"),
        ({"trainer": {"model_key": "other"}}, "the identity is the table's name"),
        ({"rollout": {"samples": 2}}, "unknown key 'trainers.shadow.rollout'"),
    ],
)
def test_a_wrong_override_is_named_with_its_key(table, message):
    with pytest.raises(ConfigError) as caught:
        config(shadow=table)
    assert message in str(caught.value)


def test_a_further_trainer_needs_its_own_identity():
    with pytest.raises(ConfigError, match="is the main trainer's identity"):
        config(policy={})


def test_further_trainers_survive_json():
    main = config(shadow={"trainer": {"steps": 7}})
    assert Config.model_validate_json(main.model_dump_json()).of_trainer("shadow").trainer.steps == 7


def test_a_preset_acts_in_a_further_trainer_and_not_beyond_it():
    main = config(shadow={"algorithm": {"name": "dapo"}})
    assert main.of_trainer("shadow").processor.drop_uniform_groups
    assert not main.processor.drop_uniform_groups
    tables = {"algorithm": {"name": "dapo"}, "trainers": {"shadow": {"algorithm": {"name": "grpo"}}}}
    dapo = resolve([("run.toml", tables)])
    assert dapo.processor.drop_uniform_groups
    assert not dapo.of_trainer("shadow").processor.drop_uniform_groups
    explicit = resolve([("run.toml", {**tables, "processor": {"drop_uniform_groups": True}})])
    assert explicit.of_trainer("shadow").processor.drop_uniform_groups


def test_a_further_trainer_can_unset_what_the_main_one_sets():
    tables = {"trainer": {"min_reward": 0.5}, "trainers": {"shadow": {"trainer": {"min_reward": "none"}}}}
    assert resolve([("run.toml", tables)]).of_trainer("shadow").trainer.min_reward is None


def test_a_further_trainer_merges_its_lora_settings_but_replaces_options_of_functions():
    tables = {
        "trainer": {"lora": {"rank": 8, "alpha": 32}},
        "algorithm": {"loss": "clipped", "loss_options": {"clip_high": 0.3}},
        "trainers": {"shadow": {"trainer": {"lora": {"rank": 4}}, "algorithm": {"loss": "sapo", "loss_options": {}}}},
    }
    shadow = resolve([("run.toml", tables)]).of_trainer("shadow")
    assert (shadow.trainer.lora.rank, shadow.trainer.lora.alpha) == (4, 32)
    assert shadow.algorithm.loss_options == {}
