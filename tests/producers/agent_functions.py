"""Agents that end in all the ways in which users' functions end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import httpx
from openai import OpenAI

from rft.workflows.rollout import Outcome
from schemas.events import Task

tries: Counter[str] = Counter()
left: list[str] = []
"""What agents did after their rollout had ended."""


def ask(base_url: str, api_key: str, text: str = "hello", max_tokens: int = 6) -> Any:
    client = OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    return client.chat.completions.create(
        model="policy", messages=[{"role": "user", "content": text}], max_tokens=max_tokens
    )


def raises_once(base_url: str, api_key: str) -> float:
    ask(base_url, api_key)
    tries["raises_once"] += 1
    if tries["raises_once"] == 1:
        raise ValueError("bad luck")
    return 1.0


def exits(base_url: str, api_key: str) -> None:
    ask(base_url, api_key)
    sys.exit("enough")


async def exits_async(base_url: str, api_key: str) -> None:
    raise SystemExit(3)


def asks_nothing(task: Task) -> float:
    return 1.0


def returns_text(base_url: str, api_key: str) -> str:
    ask(base_url, api_key)
    return "very good"


def hangs(base_url: str, api_key: str) -> None:
    ask(base_url, api_key)
    time.sleep(2.0)
    try:
        ask(base_url, api_key, "am I still welcome?")
    except Exception as error:
        left.append(type(error).__name__)


async def blocks_the_loop(base_url: str, api_key: str) -> float:
    """An async function with a synchronous client: a common mistake."""
    ask(base_url, api_key)
    return 1.0


def spends_all(base_url: str, api_key: str) -> float:
    for number in range(100):
        ask(base_url, api_key, f"hello {number}", max_tokens=1000)
    return 1.0


def outcome(**given: Any) -> Outcome:
    turn = ask(given["base_url"], given["api_key"])
    return Outcome(reward=0.5, turn_rewards={0: 0.25}, metadata={"id": turn.id, "number": given["task"].number})


def sends_rewards(base_url: str, api_key: str) -> None:
    ask(base_url, api_key)
    session = api_key.partition(".")[0]
    url = base_url.replace("/v1", f"/rft/sessions/{session}")
    headers = {"Authorization": f"Bearer {api_key}"}
    answer = httpx.post(f"{url}/reward", json={"reward": 0.75}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert httpx.get(url, headers=headers).json()["turns"] == 1


seen_keys: list[tuple[str, str]] = []


def reaches_for_another(base_url: str, api_key: str) -> float:
    """Keep the session open for a while, and use the name of another one with the own key."""
    ask(base_url, api_key)
    seen_keys.append((api_key.partition(".")[0], api_key))
    while len(seen_keys) < 2:
        time.sleep(0.01)
    (other,) = (name for name, key in seen_keys if key != api_key)
    root = base_url.removesuffix("/v1")
    answers = [
        httpx.post(f"{root}/s/{other}/v1/chat/completions", json={}, headers={"Authorization": f"Bearer {api_key}"}),
        httpx.get(f"{root}/rft/sessions/{other}", headers={"Authorization": f"Bearer {api_key}"}),
        httpx.get(f"{root}/rft/sessions/{other}", headers={"Authorization": f"Bearer {other}"}),
        httpx.get(f"{root}/rft/sessions/{other}"),
    ]
    assert [answer.status_code for answer in answers] == [401] * 4
    return 1.0


def takes_too_much(base_url: str, api_key: str, model: str) -> None: ...


def two_conversations(base_url: str, api_key: str, task: Task) -> float:
    ask(base_url, api_key, task.prompt)
    ask(base_url, api_key, "another one")
    return 0.5
