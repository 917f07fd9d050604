"""Makes experiences for pipelines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rft.stream.actions import Received
from schemas.codec import encode
from schemas.events import Experience

MAX_BYTES = 64 * 1024


def make_experience(number: int = 0, sample: int = 0, size: int = 4, split: str = "train", **fields: Any) -> Experience:
    """Return a valid rollout of four prompt tokens and three written ones."""
    group_id = f"{split}-{number:08d}"
    mask = np.array([0, 0, 0, 0, 1, 1, 1], dtype=np.uint8)
    values: dict[str, Any] = {
        "experience_id": f"{group_id}/{sample}",
        "group_id": group_id,
        "number": number,
        "sample": sample,
        "split": split,
        "group_size": size,
        "prompt": "cat>",
        "response": "tac" if sample % 2 else "dog",
        "answer": "tac",
        "created_at": 1,
        "source": "test",
        "model": "tiny",
        "tokens": np.arange(7, dtype=np.int32),
        "action_mask": mask,
        "logprobs": np.where(mask == 1, -0.5, 0).astype(np.float32),
        "versions": np.where(mask == 1, 3, -1).astype(np.int32),
    }
    return Experience(**(values | fields))


def failed_experience(number: int = 0, sample: int = 0, size: int = 4, split: str = "train") -> Experience:
    none = {name: np.zeros(0, kind) for name, kind in ARRAYS.items()}
    return make_experience(
        number, sample, size, split, response="", finish_reason="error", error="deadline of 120 s", **none
    )


ARRAYS = {"tokens": np.int32, "action_mask": np.uint8, "logprobs": np.float32, "versions": np.int32}


def make_rows(
    number: int = 0, sample: int = 0, rows: int = 2, size: int = 4, attempt: int = 0, **fields: Any
) -> list[Experience]:
    """Return the rows of one try of a rollout; the last one answers as :func:`make_experience` does."""
    made = [make_experience(number, sample, size, created_at=1 + attempt, row=row, rows=rows) for row in range(rows)]
    if rows == 1:
        return [replace(one, **fields) for one in made]
    last = rows - 1
    return [
        replace(
            one,
            experience_id=f"{one.group_id}/{sample}/{one.row}",
            response=one.response if one.row == last else "thinks",
            **fields,
        )
        for one in made
    ]


def received(experience: Experience, offset: int, partition: int = 0) -> Received:
    return Received(partition, offset, experience.group_id.encode(), encode(experience))


def score_exactly(experience: Experience) -> tuple[float, dict[str, float]]:
    if experience.response == "raise":
        raise ZeroDivisionError("the reward function's own fault")
    reward = float(experience.response == experience.answer)
    return reward, {"exact_match": reward}
