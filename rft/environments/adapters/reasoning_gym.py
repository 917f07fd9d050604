"""Adapts the datasets of reasoning-gym, with their own scorers: ``reasoning_gym:graph_color``.

One step: the model's answer is scored by the dataset's ``score_answer``. A task that came from ``tasks.source =
"reasoning_gym:<dataset>"`` is the one that is scored; for other tasks the seed makes an item. Options are the dataset's
own, and ``prompt``: text after the question, such as how to answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import reasoning_gym

from rft.environments.base import Step


class ReasoningGymEnvironment:
    """One dataset."""

    reusable = True

    def __init__(self, dataset: str, prompt: str = "", **options: Any) -> None:
        self._dataset = dataset
        self._prompt = prompt
        self._options = options
        self._scorer = reasoning_gym.create_dataset(dataset, size=1, seed=0, **options)
        self._item: dict[str, Any] = {}

    def reset(self, seed: int, task: Mapping[str, Any]) -> str:
        metadata = task["metadata"]
        if metadata.get("source_dataset") == self._dataset:
            self._item = {"question": task["prompt"], "answer": task["answer"], "metadata": metadata}
        else:
            self._item = reasoning_gym.create_dataset(self._dataset, size=1, seed=seed, **self._options)[0]
        return "\n".join(filter(None, [self._item["question"], self._prompt]))

    def step(self, action: str) -> Step:
        score = float(self._scorer.score_answer(action, self._item))
        return Step("", score, done=True, success=min(max(score, 0.0), 1.0))


def make(name: str, options: Mapping[str, Any]) -> ReasoningGymEnvironment:
    return ReasoningGymEnvironment(name, **options)
