"""An agent that has two words spelled backwards, and its tasks.

The agent knows nothing of Stream-RFT: it uses the SDK of OpenAI, and gets a base URL and an API key.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice

import reasoning_gym
from openai import AsyncOpenAI

CLIENT = AsyncOpenAI(base_url="http://gateway", api_key="set for each rollout")
"""Shared by all rollouts, because a client takes longer to make than a short rollout."""


async def solve(base_url: str, api_key: str, task) -> float:
    """Ask for one word after the other, in one conversation. Return the share of words that came back right."""
    client = CLIENT.with_options(base_url=base_url, api_key=api_key)
    messages = []
    right = 0
    words = task.prompt.split()
    for word in words:
        messages.append({"role": "user", "content": word})
        reply = await client.chat.completions.create(model="policy", messages=messages, max_tokens=8)
        answer = reply.choices[0].message.content
        messages.append({"role": "assistant", "content": answer})
        right += answer == word[::-1]
    return right / len(words)


def tasks(seed: int, size: int = 20_000, held_out: bool = False) -> Iterator[dict[str, str]]:
    """Yield pairs of words. Every fourth word occurs in held-out tasks only, and in all of them."""
    words = reasoning_gym.create_dataset("spell_backward", min_word_len=3, max_word_len=4, seed=seed, size=16 * size)
    found = (item["metadata"]["word"].lower() for item in words)
    found = (word for word in found if word.isascii() and (zlib.crc32(word.encode()) % 4 == 0) == held_out)
    for first, second in islice(zip(found, found, strict=False), size):
        yield {"question": f"{first} {second}", "answer": f"{first[::-1]} {second[::-1]}"}
