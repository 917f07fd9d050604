"""Several trainers in one configuration: ``[trainers.<key>]``."""

import pytest

from rft.config import Config
from rft.config_sources import resolve
from rft.errors import ConfigError


def config(**trainers):
    tables = {"trainer": {"steps": 50, "learning_rate": 1e-3}, "trainers": trainers}
    return resolve([("run.toml", tables)])


def test_a_further_trainer_is_the_main_one_but_for_what_it_overrides():
    main = config(shadow={"trainer": {"learning_rate": 1e-4}, "algorithm": {"name": "sft"}, "policy": {"model": "m"}})
    shadow = main.of_trainer("shadow")
    assert (shadow.trainer.steps, shadow.trainer.learning_rate) == (50, 1e-4)
    assert (shadow.trainer.model_key, shadow.trainer.follows) == ("shadow", "policy")
    assert (shadow.algorithm.name, shadow.policy.model) == ("sft", "m")
    assert shadow.tasks == main.tasks
    assert main.of_trainer("policy") is main
    assert main.trainer.follows is None


def test_an_unknown_identity_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="no trainer 'shadw'; the configuration has policy, shadow"):
        config(shadow={}).of_trainer("shadw")


@pytest.mark.parametrize(
    ("table", "said"),
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
def test_a_wrong_override_is_named_with_its_place(table, said):
    with pytest.raises(ConfigError) as caught:
        config(shadow=table)
    assert said in str(caught.value)


def test_a_further_trainer_needs_an_identity_of_its_own():
    with pytest.raises(ConfigError, match="is the main trainer's identity"):
        config(policy={})


def test_it_survives_the_way_through_json():
    main = config(shadow={"trainer": {"steps": 7}})
    assert Config.model_validate_json(main.model_dump_json()).of_trainer("shadow").trainer.steps == 7
