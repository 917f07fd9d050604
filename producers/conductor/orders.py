"""From an order to the Task that is issued (pure): the same order gives the same task, whenever it is given."""

from __future__ import annotations

import hashlib
import json

from producers.conductor.core import EvalOrder, Order, TrainOrder
from producers.conductor.evaluation import group_id_of
from rft.config import Config
from rft.tasks.base import TaskItem
from schemas.events import Task


def seed_of(run_seed: int, group_id: str) -> int:
    """Seeds the sampling of one group; 31 bits."""
    digest = hashlib.blake2b(f"{run_seed}/{group_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def task_of(order: Order, item: TaskItem, config: Config, now_ms: int) -> Task:
    """The task for ``order`` with the question of ``item``."""
    match order:
        case TrainOrder(number, min_version):
            split, group_id = "train", f"train-{number:08d}"
            samples, temperature, top_p = config.rollout.samples, config.rollout.temperature, config.rollout.top_p
        case EvalOrder(version, number):
            split, group_id, min_version = "eval", group_id_of(version, number), version
            samples, temperature, top_p = 1, config.eval.temperature, 1.0
    return Task(
        group_id=group_id,
        number=number,
        split=split,
        source=config.tasks.source if split == "train" else config.tasks.eval_source or config.tasks.source,
        prompt=item.prompt,
        answer=item.answer,
        samples=samples,
        max_tokens=config.rollout.max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed_of(config.run.seed, group_id),
        min_version=min_version,
        issued_at=now_ms,
        metadata=json.dumps(item.metadata),
    )
