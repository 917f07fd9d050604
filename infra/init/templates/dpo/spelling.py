"""The tasks that the evaluation asks, and what makes an answer the worse one of a pair. Put your own here."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

LETTERS = string.ascii_lowercase[:12]


def tasks(seed: int, size: int = 4000) -> Iterator[dict[str, str]]:
    """Yield words, and what they are backwards."""
    draw = random.Random(seed)
    for _ in range(size):
        word = "".join(draw.sample(LETTERS, k=draw.randint(2, 4)))
        yield {"question": word, "answer": word[::-1]}


def worse(answer: str, draw: random.Random) -> str:
    """Return the answer with two neighboring letters exchanged."""
    at = draw.randrange(len(answer) - 1)
    return answer[:at] + answer[at + 1] + answer[at] + answer[at + 2 :]
