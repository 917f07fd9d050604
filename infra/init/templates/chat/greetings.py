"""The tasks and the reward: answer somebody by name, politely. Put your own here."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

GREETING = "hi "


def tasks(seed: int, size: int = 2000) -> Iterator[dict[str, str]]:
    """Yield what a user says, and the answer that is wanted. A list `messages` would begin with earlier messages."""
    draw = random.Random(seed)
    for _ in range(size):
        name = "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 4)))
        yield {"question": name, "answer": f"{GREETING}{name}"}


def polite(response: str, answer: str) -> dict[str, float]:
    """Return two values by name. Their sum is the reward, and the report shows each."""
    greets = response.startswith(GREETING)
    return {"greets": 0.25 * greets, "name": 0.75 * (response.strip() == answer)}
