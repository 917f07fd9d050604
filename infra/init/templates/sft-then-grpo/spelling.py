"""The tasks and the reward: words spelled backwards. Put your own here."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

LETTERS = string.ascii_lowercase[:12]


def tasks(seed: int, size: int = 4000) -> Iterator[dict[str, str]]:
    """Yield words, and what they are backwards."""
    draw = random.Random(seed)
    for _ in range(size):
        word = "".join(draw.choices(LETTERS, k=draw.randint(2, 4)))
        yield {"question": word, "answer": word[::-1]}


def backwards(response: str, answer: str) -> float:
    """Return 1 for the right answer, else 0."""
    return float(response == answer)
