"""Run with `python -m pytest`: the configuration loads, and the reward is what it should be."""

from pathlib import Path

from greetings import polite, tasks

from rft.config_sources import load_config
from rft.tasks import open_sources

CONFIG = Path(__file__).with_name("run.toml")


def test_the_wanted_answer_gets_the_full_reward_and_a_greeting_alone_a_part_of_it() -> None:
    for task in tasks(seed=0, size=100):
        assert sum(polite(task["answer"], task["answer"]).values()) == 1
    assert polite("hi bob", "hi ann") == {"greets": 0.25, "name": 0}
    assert sum(polite("ann", "hi ann").values()) == 0


def test_the_configuration_loads_and_no_held_out_task_is_trained() -> None:
    splits = open_sources(load_config(CONFIG))
    held_out = {splits.held_out[number].prompt for number in range(len(splits.held_out))}
    assert held_out
    assert held_out.isdisjoint(splits.train[number].prompt for number in range(200))
