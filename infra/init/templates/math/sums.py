"""The tasks and the reward: sums, and whether the answer is the right number. Put your own here."""

from __future__ import annotations

import random
from collections.abc import Iterator

LARGEST = 19


def tasks(seed: int, size: int = 2000) -> Iterator[dict[str, object]]:
    """Yield questions with their answers. Fields besides these two reach the prompt and the reward as metadata."""
    draw = random.Random(seed)
    for _ in range(size):
        a, b = draw.randint(0, LARGEST), draw.randint(0, LARGEST)
        yield {"question": f"{a}+{b}", "answer": str(a + b), "largest": max(a, b)}


def right_number(response: str, answer: str) -> float:
    """Return 1 for the right number, else 0. An answer in another form is wrong, too."""
    return float(response.strip() == answer)
