"""Curricula choose by results, and their state follows from the log in any order of reading."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.config import Config, TasksConfig
from rft.errors import ConfigError
from rft.tasks import open_sources
from rft.tasks.base import TaskItem
from rft.tasks.curriculum import Curriculum, History
from rft.tasks.finite import by_difficulty

ITEMS = [TaskItem(f"q{n}", None, {"level": {"n": 9 - n}}, f"p{n}") for n in range(10)]
SKILL = [0.0, 0.0, 0.1, 0.3, 0.45, 0.6, 0.8, 0.9, 1.0, 1.0]
"""Pass rate of each item."""


def play(curriculum: Curriculum, numbers: range, samples: int = 20) -> list[int]:
    """Choose and answer one task after the other; return the chosen items."""
    asked = []
    for number in numbers:
        index = curriculum.index(number)
        for sample in range(samples):
            curriculum.history.saw_reward(number, sample, float(sample < samples * SKILL[index]))
        asked.append(index)
    return asked


def test_every_item_is_chosen_once_and_then_those_nearest_to_the_target() -> None:
    curriculum = Curriculum(TasksConfig(order="pass_rate", target_pass_rate=0.5), 0, ITEMS)
    asked = play(curriculum, range(60))
    assert sorted(asked[:10]) == list(range(10))
    assert set(asked[10:]) == {4}  # 0.45 is nearest to 0.5
    hard = Curriculum(TasksConfig(order="pass_rate", target_pass_rate=0.1), 0, ITEMS)
    assert set(play(hard, range(60))[10:]) == {2}


def test_a_task_in_progress_is_not_issued_again_while_there_is_another() -> None:
    curriculum = Curriculum(TasksConfig(order="pass_rate"), 0, ITEMS)
    assert sorted(curriculum.index(number) for number in range(10)) == list(range(10))
    assert Counter(curriculum.index(number) for number in range(10, 12)).total() == 2


tasks = st.tuples(st.just("task"), st.integers(0, 12), st.just(0))
rewards = st.tuples(st.just("reward"), st.integers(0, 12), st.integers(0, 2))


@given(st.lists(tasks | rewards, max_size=60), st.randoms(use_true_random=False))
def test_a_history_is_the_same_in_any_order_of_reading_the_log(events: list[tuple[str, int, int]], dice) -> None:
    """This includes repetitions, and more groups than are remembered."""

    def read(log: list[tuple[str, int, int]]) -> History:
        history = History(remembered=6)
        for what, number, sample in log:
            if what == "task":
                history.saw_task(number, f"p{number % 4}")
            else:
                history.saw_reward(number, sample, (number + sample) % 3 / 2)
        return history

    shuffled = [*events, *events[::2]]
    dice.shuffle(shuffled)
    one, other = read(events), read(shuffled)
    for prompt in ("p0", "p1", "p2", "p3"):
        assert one.pass_rate(prompt) == other.pass_rate(prompt)
        assert one.in_progress(prompt) == other.in_progress(prompt)
    restarted = Curriculum(TasksConfig(order="pass_rate"), 3, ITEMS)
    undisturbed = Curriculum(TasksConfig(order="pass_rate"), 3, ITEMS)
    restarted.history, undisturbed.history = one, other
    assert [restarted.index(n) for n in range(13, 20)] == [undisturbed.index(n) for n in range(13, 20)]


def hardest_unsolved(number: int, items: list[TaskItem], history: History) -> int:
    return min(range(len(items)), key=lambda index: (history.pass_rate(items[index].prompt), index))


def beyond(number: int, items: list[TaskItem], history: History) -> int:
    return len(items)


def test_a_users_function_chooses_and_an_error_names_its_fault() -> None:
    mine = Curriculum(TasksConfig(order="tests.rft.tasks.test_curriculum:hardest_unsolved"), 0, ITEMS)
    # Nothing is known of any: the first; its rate is 0, and so is that of the next, which was asked less often.
    assert play(mine, range(4)) == [0, 1, 2, 3]
    wrong = Curriculum(TasksConfig(order="tests.rft.tasks.test_curriculum:beyond"), 0, ITEMS)
    with pytest.raises(ConfigError, match="returned 10, but there are items 0 to 9"):
        wrong.index(0)


def test_easy_to_hard_sorts_by_a_number_in_the_metadata() -> None:
    assert [item.question for item in by_difficulty(ITEMS, "level.n")] == [f"q{n}" for n in range(9, -1, -1)]
    with pytest.raises(ConfigError, match="not a number in the metadata of the task 'p0', which has level"):
        by_difficulty(ITEMS, "level")
    config = Config.model_validate(
        {
            "tasks": {"source": "reasoning_gym:spell_backward", "order": "easy_to_hard", "pool": 80,
                      "difficulty": "word_len", "prompt_template": "{word}>"},
            "eval": {"tasks": 5},
        }
    )  # fmt: skip
    train = open_sources(config).train
    lengths = [len(train[number].metadata["word"]) for number in range(len(train))]
    assert 50 < len(lengths) <= 80
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
