"""Adapts the datasets of reasoning-gym, with their own scorers: ``reasoning_gym:graph_color``.

One step: the model's answer is scored by the dataset's ``score_answer``. A task that came from ``tasks.source =
"reasoning_gym:<dataset>"`` is the one that is scored; for other tasks the seed makes an item. Options are the dataset's
own, and ``prompt``: text after the question, such as how to answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rft.environments.base import Step
from rft.rewards.dataset_scorer import make_dataset, score_item


class ReasoningGymEnvironment:
    """One dataset."""

    reusable = True

    def __init__(self, dataset: str, prompt: str = "", **options: Any) -> None:
        self._dataset = dataset
        self._prompt = prompt
        self._options = options
        make_dataset(dataset, options, seed=0, size=1)  # wrong options are found now
        self._item: dict[str, Any] = {}

    def reset(self, seed: int, task: Mapping[str, Any]) -> str:
        metadata = task["metadata"]
        if metadata.get("source_dataset") == self._dataset:
            self._item = {"question": task["prompt"], "answer": task["answer"], "metadata": metadata}
        else:
            self._item = make_dataset(self._dataset, self._options, seed=seed, size=1)[0]
        return "\n".join(filter(None, [self._item["question"], self._prompt]))

    def step(self, action: str) -> Step:
        score = score_item(self._dataset, self._options, action, self._item)
        return Step("", score, done=True, success=min(max(score, 0.0), 1.0))


def make(name: str, options: Mapping[str, Any]) -> ReasoningGymEnvironment:
    return ReasoningGymEnvironment(name, **options)
