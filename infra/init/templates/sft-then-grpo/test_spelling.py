"""Run with `python -m pytest`: the configuration loads, and the reward is what it should be."""

from pathlib import Path

from spelling import backwards, tasks

from rft.config_sources import load_config
from rft.tasks import open_sources

CONFIG = Path(__file__).with_name("run.toml")


def test_the_right_answer_is_rewarded_and_others_are_not() -> None:
    for task in tasks(seed=0, size=100):
        assert backwards(task["answer"], task["answer"]) == 1
    for wrong in ("", "abc", "cb", "cba "):
        assert backwards(wrong, "cba") == 0


def test_both_stages_load_and_no_held_out_task_is_trained() -> None:
    config = load_config(CONFIG)
    assert [config.of_stage(index).algorithm.name for index in range(len(config.stages))] == ["sft", "grpo"]
    splits = open_sources(config)
    held_out = {splits.held_out[number].prompt for number in range(len(splits.held_out))}
    assert held_out
    assert held_out.isdisjoint(splits.train[number].prompt for number in range(200))
