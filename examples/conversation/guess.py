"""A guessing game of two turns. The policy sees three letters, one of which is the secret. It guesses, hears whether
the secret comes earlier or later in the alphabet, and guesses again."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

from rft.workflows.conversation import Conversation
from schemas.events import Task


def tasks(seed: int, size: int = 2000) -> Iterator[dict[str, str]]:
    """Yield games: three letters in alphabetical order, and the secret."""
    draw = random.Random(seed)
    for _ in range(size):
        letters = sorted(draw.sample(string.ascii_lowercase, 3))
        yield {"question": "".join(letters), "answer": draw.choice(letters)}


def hint(guess: str, secret: str) -> str:
    """Return what the policy hears of a wrong guess."""
    if len(guess) != 1 or guess not in string.ascii_lowercase:
        return "?"
    return "+" if guess < secret else "-"


async def guess(task: Task, conversation: Conversation) -> float:
    """Play one game, and return 1 if the secret was found."""
    conversation.user(task.prompt)
    first = await conversation.generate(max_tokens=3)
    if first.content == task.answer:
        return 1.0
    conversation.user(hint(first.content, str(task.answer)))
    second = await conversation.generate(max_tokens=3)
    return float(second.content == task.answer)
