"""Each dataset of reasoning-gym gives tasks, and its own scorer gives its right answer full marks.

``make gym`` runs all datasets; ``make test`` those whose items or scorers differ from the rest.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from reasoning_gym.factory import DATASETS
from right_answers import SOLVED, right_answer

from rft.config import Config, ProcessorConfig, RewardTerm
from rft.errors import RewardError
from rft.rewards.dataset_scorer import TUPLES, reasoning_gym
from rft.rewards.isolation import open_scorer
from rft.rewards.scorer import make_scorer
from rft.tasks.procedural import Gym
from schemas.events import Experience

ITEMS = 3
NEED_OPTIONS: dict[str, dict[str, Any]] = {"composite": {"datasets": [{"name": "chain_sum"}, {"name": "countdown"}]}}
"""Datasets without items of their own."""
YES_OR_NO = {"game_of_life_halting"}
"""Datasets that take whatever is not yes for no."""
IN_SHORT = [*SOLVED, *TUPLES, "composite", "chain_sum", "countdown", "spell_backward", "zebra_puzzles"]
ALL = [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.gym) for name in sorted(DATASETS)]


@pytest.mark.parametrize("dataset", ALL)
def test_the_right_answer_of_a_dataset_gets_full_marks(dataset: str) -> None:
    options = NEED_OPTIONS.get(dataset, {})
    source = Gym(dataset, options, "{question}")
    for index in range(ITEMS):
        item = source.item("train-0", 0, index)
        metadata = json.loads(json.dumps(dict(item.metadata)))  # as it comes through the log
        given = {"prompt": item.prompt, "metadata": metadata, **options}
        assert reasoning_gym(right_answer(dataset, item), item.answer, **given) == pytest.approx(1.0), item.question
        assert reasoning_gym("\u2205 no answer", item.answer, **given) < 1 or dataset in YES_OR_NO


def test_a_response_that_the_scorer_cannot_read_is_wrong() -> None:
    item = Gym("prime_factorization", {}, "{question}").item("train-0", 0, 0)
    assert reasoning_gym("I do not know", item.answer, prompt=item.prompt, metadata=item.metadata) == 0.0


def test_white_space_around_a_response_does_not_count() -> None:
    metadata = {"source_dataset": "spell_backward"}
    assert reasoning_gym(" cba\n", "cba", prompt="", metadata=metadata) == 1.0
    assert reasoning_gym("cbx", "cba", prompt="", metadata=metadata) == pytest.approx(2 / 3)


def test_a_task_of_another_source_is_compared_exactly() -> None:
    assert reasoning_gym("4", "4", prompt="", metadata={}) == 1.0
    with pytest.raises(RewardError, match="needs the task's answer"):
        reasoning_gym("4", None, prompt="", metadata={})


def test_it_is_the_reward_of_its_source_unless_another_is_set() -> None:
    tasks = {"source": "reasoning_gym:countdown", "options": {"min_numbers": 3}}
    assert Config.model_validate({"tasks": tasks}).processor.rewards == [
        RewardTerm(function="reasoning_gym", options={"min_numbers": 3})
    ]
    own = [{"function": "numeric_match"}]
    assert Config.model_validate({"tasks": tasks, "processor": {"rewards": own}}).processor.rewards == [
        RewardTerm(function="numeric_match")
    ]
    assert Config.model_validate({"tasks": {"source": "jsonl:a.jsonl"}}).processor.rewards == [
        RewardTerm(function="exact_match")
    ]


def test_options_that_do_not_fit_the_dataset_fail_the_sample() -> None:
    term = RewardTerm(function="reasoning_gym", options={"no_such_option": 3})
    sample = Experience(
        experience_id="g/0",
        group_id="g",
        number=0,
        sample=0,
        split="train",
        group_size=1,
        prompt="",
        response="cba",
        answer="cba",
        created_at=0,
        source="test",
        model="policy",
        metadata='{"source_dataset": "spell_backward"}',
    )
    for score in (make_scorer([term]), open_scorer(ProcessorConfig(rewards=[term]))):
        with pytest.raises(RewardError, match=r"reasoning_gym raised TypeError: .*no_such_option"):
            score(sample)
