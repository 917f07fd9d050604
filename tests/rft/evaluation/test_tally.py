"""Answers may arrive in any order and more than once; the numbers do not change."""

from __future__ import annotations

import json
import random

import pytest

from rft.config import Config, EvalSet
from rft.evaluation.difficulty import FIRST_TIME, UNKNOWN, DifficultyClasses
from rft.evaluation.tally import Tally, difficulty_classes

RIGHT = {0: (True, True, True, True), 1: (True, False, False, False), 2: (False, False, False, False)}


def eval_set(**fields: object) -> EvalSet:
    values = {"tasks": 3, "samples": 4, "temperature": 1.0, **fields}
    return Config.model_validate({"eval": values}).eval_sets["held_out"]


def answers(right: dict[int, tuple[bool, ...]], metadata: dict[int, object] | None = None) -> Tally:
    arrivals = [(number, sample) for number, row in right.items() for sample in range(len(row))] * 2
    random.Random(0).shuffle(arrivals)
    tally = Tally()
    for number, sample in arrivals:
        tally.add(
            number, f"{number}/{sample}", right=right[number][sample], reward=float(right[number][sample]) / 2,
            expected=len(right[number]), metadata=json.dumps((metadata or {}).get(number, {})),
        )  # fmt: skip
    return tally


def test_the_estimates_of_a_set_are_means_over_its_tasks() -> None:
    tally = answers(RIGHT)
    found = tally.result(eval_set(), difficulty_classes(eval_set(), [tally]))
    assert (found["tasks"], found["answers"], tally.answered) == (3, 12, 3)
    assert found["accuracy"] == pytest.approx(5 / 12, abs=1e-5)
    assert found["reward"] == pytest.approx(5 / 24, abs=1e-5)
    assert found["mean_at"] == pytest.approx({"1": 2 / 3, "2": 1.5 / 3, "4": 1.25 / 3}, abs=1e-5)
    assert found["pass_at"] == pytest.approx({"1": 1.25 / 3, "2": 1.5 / 3, "4": 2 / 3}, abs=1e-5)


def test_a_task_counts_as_answered_when_all_its_answers_have_arrived() -> None:
    tally = Tally()
    for sample in (0, 0, 1):
        tally.add(5, f"5/{sample}", right=True, reward=1.0, expected=3)
    assert tally.answered == 0
    tally.add(5, "5/2", right=False, reward=0.0, expected=3)
    assert tally.answered == 1
    assert tally.accuracy == pytest.approx(2 / 3)


def test_by_default_difficulty_is_how_the_first_evaluation_went() -> None:
    first, later = answers(RIGHT), answers(RIGHT | {2: (True,) * 4})
    classes = difficulty_classes(eval_set(), [first, later])
    found = later.result(eval_set(), classes)["by_difficulty"]
    assert list(found) == [FIRST_TIME[0], FIRST_TIME[1], FIRST_TIME[3]]
    assert found[FIRST_TIME[0]]["accuracy"] == 1.0
    assert found[FIRST_TIME[1]]["accuracy"] == 0.25
    assert classes.class_of(99, "{}") == UNKNOWN


def test_difficulty_can_be_read_from_the_tasks_metadata() -> None:
    tally = answers(RIGHT, {0: {"word": {"length": 3}}, 1: {"word": {"length": 5}}, 2: {"word": {}}})
    one = eval_set(difficulty="word.length")
    found = tally.result(one, difficulty_classes(one, [tally]))["by_difficulty"]
    assert {name: numbers["accuracy"] for name, numbers in found.items()} == {"3": 1.0, "5": 0.25, UNKNOWN: 0.0}
    assert list(found) == ["3", "5", UNKNOWN]


def test_many_different_numbers_become_classes_of_about_equal_size() -> None:
    metadata = [json.dumps({"size": value}) for value in range(100)]
    classes = DifficultyClasses.from_metadata("size", metadata)
    assert classes.names == ("0 to below 25", "25 to below 50", "50 to below 75", "75 to 99")
    counts = [sum(classes.class_of(0, text) == name for text in metadata) for name in classes.names]
    assert counts == [25, 25, 25, 25]
    assert (
        DifficultyClasses.from_metadata("size", [json.dumps({"size": 0})] * 90 + metadata).names[0].startswith("0 to")
    )
