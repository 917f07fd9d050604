"""Experiences that wait for a rewarder, and a look at the rewards."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rft.config import Config
from rft.log.writer import EventWriter
from schemas.events import Experience, Reward
from tests.producers.roles import Log


def experience(number: int, sample: int, *, size: int = 4, **changes: Any) -> Experience:
    """Return an experience whose response has ``number + sample`` letters."""
    group = f"train-{number:08d}"
    fields: dict[str, Any] = {
        "experience_id": f"{group}/{sample}",
        "group_id": group,
        "number": number,
        "sample": sample,
        "split": "train",
        "group_size": size,
        "prompt": "p",
        "response": "x" * (number + sample),
        "answer": None,
        "created_at": 1,
        "source": "test",
        "model": "policy",
    }
    return Experience(**{**fields, **changes})


def publish(config: Config, experiences: list[Experience]) -> None:
    with EventWriter(config, "test") as writer:
        for one in experiences:
            writer.send("experiences", one)


def by_id(rewards: list[Reward]) -> Counter[tuple[str, str, int]]:
    """Count the rewards by what names them."""
    return Counter((one.experience_id, one.source, one.revision) for one in rewards)


def all_rewards(log: Log, ids: set[str], timeout_s: float = 90) -> list[Reward]:
    """Return the rewards on the log once each of these samples has one."""
    return log.wait("rewards", lambda found: ids <= {one.experience_id for one in found}, timeout_s)
