"""From an order to the Task that is issued (pure): the same order gives the same task, whenever it is given."""

from __future__ import annotations

import hashlib
import json

from producers.conductor.core import EvalTaskRequest, Order, TrainTaskRequest
from rft.config import Config, EvalSet, RolloutConfig
from rft.evaluation.ids import EvalGroup
from rft.tasks.base import TaskItem
from schemas.events import Task


def seed_of(run_seed: int, group_id: str) -> int:
    """Seeds the sampling of one group; 31 bits."""
    digest = hashlib.blake2b(f"{run_seed}/{group_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def task_of(order: Order, item: TaskItem, config: Config, now_ms: int) -> Task:
    """The task for ``order`` with the question of ``item``."""
    asked: RolloutConfig | EvalSet
    match order:
        case TrainTaskRequest(number, min_version):
            split, group_id = "train", f"train-{number:08d}"
            source, asked = config.tasks.source, config.rollout
        case EvalTaskRequest(version, number, set_name):
            split, group_id, min_version = "eval", EvalGroup(version, number, set_name).group_id, version
            asked = config.eval_sets[set_name]
            source = asked.source
    return Task(
        group_id=group_id,
        number=number,
        split=split,
        source=source,
        prompt=item.prompt,
        answer=item.answer,
        samples=asked.samples,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=seed_of(config.run.seed, group_id),
        min_version=min_version,
        issued_at=now_ms,
        metadata=json.dumps(item.metadata),
    )
