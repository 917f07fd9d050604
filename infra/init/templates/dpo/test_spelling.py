"""Run with `python -m pytest`: the configuration loads, and a worse answer is a wrong one."""

import random
from pathlib import Path

from spelling import tasks, worse

from rft.config_sources import load_config
from rft.rewards.matching import exact_match
from rft.tasks import open_sources

CONFIG = Path(__file__).with_name("run.toml")


def test_the_worse_answer_is_wrong_and_of_the_same_letters() -> None:
    draw = random.Random(0)
    for task in tasks(seed=0, size=200):
        rejected = worse(task["answer"], draw)
        assert exact_match(task["answer"], task["answer"]) == 1
        assert exact_match(rejected, task["answer"]) == 0
        assert sorted(rejected) == sorted(task["answer"])


def test_the_configuration_loads_and_no_held_out_task_is_trained() -> None:
    config = load_config(CONFIG)
    assert config.imports[0].kind == "preferences"
    splits = open_sources(config)
    held_out = {splits.held_out[number].prompt for number in range(len(splits.held_out))}
    assert held_out
    assert held_out.isdisjoint(splits.train[number].prompt for number in range(200))
