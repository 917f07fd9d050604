"""``reasoning_gym``: scores a response as the reasoning-gym dataset does that its task came from.

Most datasets have many right answers, or give part of the marks for part of the answer: 72 of 106 bring a scorer of
their own. It gets the task as ``tasks.source`` made it, and it was plain JSON in between.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rft.errors import RewardError
from rft.rewards.gym_import import COMPOSITE, import_dataset
from rft.rewards.matching import exact_match

TUPLES = {"arc_agi": ("output",), "rearc": ("output",)}
"""Metadata that a dataset compares as tuples of tuples. JSON has lists only."""


def reasoning_gym(
    response: str, answer: str | None, *, prompt: str, metadata: Mapping[str, Any], **options: Any
) -> float:
    """Return the score that the task's own dataset gives, usually 0 to 1. ``options`` are the dataset's.

    White space around the response does not count, unless the answer has some. A task of another source is compared as
    by ``exact_match``. Raises RewardError if reasoning-gym is not installed, or the options do not fit.
    """
    dataset = metadata.get("source_dataset")
    if not isinstance(dataset, str):
        return exact_match(response, answer)
    if answer is None or answer == answer.strip():
        response = response.strip()
    item = {"question": prompt, "answer": answer, "metadata": metadata}
    try:
        # A composite's items name the dataset that they came from, and its options name the datasets.
        return score_item(COMPOSITE if "datasets" in options else dataset, options, response, item)
    except ImportError as error:
        raise RewardError("reasoning_gym needs the package reasoning-gym; pip install reasoning-gym") from error


def score_item(dataset: str, options: Mapping[str, Any], response: str, item: Mapping[str, Any]) -> float:
    """Return the score of a response to one item of a dataset, whose metadata may come from JSON.

    A response on which the scorer fails gets 0: some expect numbers and read others with ``int``. Raises whatever the
    dataset raises when it is made.
    """
    metadata = copy.deepcopy(dict(item["metadata"]))  # some scorers play on it
    for key in TUPLES.get(dataset, ()):
        metadata[key] = _as_tuples(metadata.get(key))
    scorer = _scorer(dataset, json.dumps(dict(options), sort_keys=True))
    try:
        return float(scorer.score_answer(response, {**item, "metadata": metadata}))
    except Exception:
        return 0.0


def make_dataset(name: str, options: Mapping[str, Any], *, seed: int, size: int) -> Any:
    """Return a dataset of reasoning-gym. Its options are plain values, also those of ``composite``.

    Raises ImportError if reasoning-gym is not installed, and whatever the dataset raises.
    """
    import_dataset(name)
    from reasoning_gym.factory import create_dataset

    given = dict(options)
    if name == COMPOSITE and "datasets" in given:
        from reasoning_gym.composite import DatasetSpec

        given["datasets"] = [DatasetSpec(**{"weight": 1.0, "config": {}, **each}) for each in given["datasets"]]
    return create_dataset(name, **{**given, "seed": seed, "size": size})


@lru_cache(maxsize=32)
def _scorer(dataset: str, options: str) -> Any:
    return make_dataset(dataset, json.loads(options), seed=0, size=1)


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(each) for each in value) if isinstance(value, list) else value
