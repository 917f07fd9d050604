"""Builds a made-up log, event by event, for the tests of the report."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from rft.log.cloud_events import cloud_event_headers
from rft.log.events import Event
from schemas.codec import encode
from schemas.events import EventRef, Experience, Member, Record, ScoredExperience, TrainingStep, WeightVersion


class MadeUpLog:
    """Events with offsets as a broker would give them; one partition each, one second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._offsets: Counter[str] = Counter()

    def add(
        self, entity: str, record: Record | bytes, *, key: str = "", at_s: float | None = None, headers: Any = None
    ) -> Event:
        offset = self._offsets[entity]
        self._offsets[entity] += 1
        at_ms = int(1000 * (len(self.events) if at_s is None else at_s))
        value = record if isinstance(record, bytes) else encode(record)
        if headers is None:
            headers = [] if isinstance(record, bytes) else cloud_event_headers(record, "test", at_ms)
        event = Event(entity, 0, offset, at_ms, key.encode(), value, tuple(headers))
        self.events.append(event)
        return event

    def of(self, *entities: str) -> list[Event]:
        """Return the events of some topics, topic by topic."""
        return [event for entity in entities for event in self.events if event.entity == entity]


def experience(experience_id: str, response: str = "ab", **fields: Any) -> Experience:
    group_id = experience_id.rsplit("/", 1)[0]
    values: dict[str, Any] = {
        "experience_id": experience_id, "group_id": group_id, "number": 0, "sample": 0,
        "split": "eval" if group_id.startswith("eval") else "train", "group_size": 1, "prompt": "ba>",
        "response": response, "answer": "ab", "created_at": 0, "source": "explorer", "model": "policy",
        "tokens": np.array([5, 6], dtype=np.int32), "action_mask": np.array([0, 1], dtype=np.uint8),
        "logprobs": np.array([0, -1], dtype=np.float32), "versions": np.array([-1, 0], dtype=np.int32),
    }  # fmt: skip
    return Experience(**(values | fields))


def scored(one: Experience, reward: float = 1.0, cause: str | None = None) -> ScoredExperience:
    return ScoredExperience(
        experience=one, origin_partition=0, origin_offset=0, verdict="filtered" if cause else "train", cause=cause,
        reward=reward, rewards={"exact_match": reward}, priority=0.0, release_id="r", release_size=1, scored_at=0,
    )  # fmt: skip


def step(
    number: int, trained: dict[str, int], dropped: dict[str, str] | None = None, *, kind: str = "step", **metrics: float
) -> TrainingStep:
    """``trained``: staleness by experience id; ``dropped``: cause by experience id."""
    return TrainingStep(
        model="policy", kind=kind, step=number, version=number - 1, next_version=number,
        trained=tuple(EventRef(0, 0, name, 0, stale) for name, stale in trained.items()),
        dropped=tuple(EventRef(0, 0, name, 0, 0, cause) for name, cause in (dropped or {}).items()),
        retired=(), digest="d", metrics=metrics, created_at=1000 * number,
    )  # fmt: skip


def weights(version: int, *, final: bool = False, model: str = "policy") -> WeightVersion:
    return WeightVersion(
        model=model, version=version, step=version, transport="checkpoint", uri="w", sha256="0" * 64, size_bytes=1,
        final=final, created_at=0,
    )  # fmt: skip


def member(address: str, **stats: float) -> Member:
    return Member(
        member_id="explorer-0", role="explorer", engine="transformers", state="here", version=0, sha256="",
        address=address, heartbeat_at=0, stats=stats,
    )  # fmt: skip


def dead_letter_headers(topic: str, offset: int, cause: str = "DecodeError") -> list[tuple[str, bytes]]:
    facts = {"topic": topic, "partition": "0", "offset": str(offset), "class": cause}
    return [(f"rft.error.{name}", value.encode()) for name, value in facts.items()]
