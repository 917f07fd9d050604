"""The agent and its tasks. The agent knows nothing of the training: it gets a base URL and a key, and asks a model."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Any

from openai import AsyncOpenAI

WORDS = 2
CLIENT = AsyncOpenAI(base_url="http://gateway", api_key="set for each rollout")
"""Shared by all rollouts, because a client takes longer to make than a short rollout."""


def tasks(seed: int, size: int = 2000) -> Iterator[dict[str, str]]:
    """Yield the words that the agent is to have spelled backwards, one after the other."""
    draw = random.Random(seed)
    for _ in range(size):
        words = ["".join(draw.choices(string.ascii_lowercase[:8], k=3)) for _ in range(WORDS)]
        yield {"question": " ".join(words), "answer": " ".join(word[::-1] for word in words)}


async def solve(base_url: str, api_key: str, task: Any) -> float:
    """Do one task with as many calls as it takes, and return its reward: the share of words that came back right.

    Any agent goes here: whatever it asks the model under this URL is recorded and trained.
    """
    client = CLIENT.with_options(base_url=base_url, api_key=api_key)
    messages: list[Any] = []
    words = task.prompt.split()
    right = 0
    for word in words:
        messages.append({"role": "user", "content": word})
        reply = await client.chat.completions.create(model="policy", messages=messages, max_tokens=6)
        answer = reply.choices[0].message.content or ""
        messages.append({"role": "assistant", "content": answer})
        right += answer == word[::-1]
    return right / len(words)
