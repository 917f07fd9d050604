"""An application that has words spelled backwards, with the SDK of OpenAI, and says how good each answer was.

It is no part of the run: it knows an address and a token. It ends when the run does.

    python examples/serve/application.py http://127.0.0.1:8000 runs/serve/gateway/token
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import reasoning_gym
from openai import AsyncOpenAI

SAMPLES = 4
"""Answers to each question: they are compared with each other."""
USERS = 16
"""Questions that are asked at once."""


async def ask(url: str, key: str, session: str, word: str, http: httpx.AsyncClient) -> None:
    """Have one word spelled backwards, in a session of its own, and reward the answer."""
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, http_client=http, max_retries=10)
    messages = [{"role": "user", "content": word}]
    reply = await client.chat.completions.create(model="policy", messages=messages, max_tokens=8)
    right = sum(a == b for a, b in zip(reply.choices[0].message.content, word[::-1], strict=False)) / len(word)
    ended = await http.post(f"{url}/rft/sessions/{session}/end", json={"reward": right}, headers=bearer(key))
    ended.raise_for_status()


async def user(url: str, token: str, words: Iterator[str]) -> None:
    """Ask one question after the other, each several times at once."""
    async with httpx.AsyncClient(timeout=120) as http:
        for word in words:
            group = {"group": uuid.uuid4().hex, "samples": SAMPLES}
            opened = await http.post(f"{url}/rft/sessions", json=group, headers=bearer(token))
            opened.raise_for_status()
            sessions = opened.json()["sessions"]
            await asyncio.gather(*(ask(url, one["api_key"], one["session"], word, http) for one in sessions))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def main(url: str, token: str) -> None:
    found = reasoning_gym.create_dataset("spell_backward", min_word_len=3, max_word_len=4, seed=1, size=100_000)
    words = (word for word in (item["metadata"]["word"].lower() for item in found) if word.isascii())
    await asyncio.gather(*(user(url, token, words) for _ in range(USERS)))


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_text().strip()))
    except httpx.TransportError as gone:
        print(f"the gateway has ended: {gone}")
