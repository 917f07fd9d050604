"""Run with `python -m pytest`: the configuration loads, and the right answer to each task gets the full reward."""

from pathlib import Path

from sums import right_number, tasks

from rft.config_sources import load_config
from rft.tasks import open_sources

CONFIG = Path(__file__).with_name("run.toml")


def test_the_right_answer_is_rewarded_and_others_are_not() -> None:
    for task in tasks(seed=0, size=100):
        assert right_number(task["answer"], task["answer"]) == 1
        assert right_number(f" {task['answer']}\n", task["answer"]) == 1
    for wrong in ("", "4", "+5", "five", "55"):
        assert right_number(wrong, "5") == 0


def test_the_configuration_loads_and_no_held_out_task_is_trained() -> None:
    splits = open_sources(load_config(CONFIG))
    held_out = {splits.held_out[number].prompt for number in range(len(splits.held_out))}
    assert held_out
    assert held_out.isdisjoint(splits.train[number].prompt for number in range(200))
