"""Requests of the core for tasks, and the tasks that they become (pure).

The same request gives the same task, whenever it is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from rft.config import MAIN_SET, Config, EvalSet, RolloutConfig
from rft.evaluation.ids import EvalGroup
from rft.tasks.base import TaskItem
from rft.tasks.chat import task_metadata
from schemas.events import Task


@dataclass(frozen=True, slots=True)
class TrainTaskRequest:
    """Issue train task ``number``, for explorers that hold at least ``min_version``."""

    number: int
    min_version: int


@dataclass(frozen=True, slots=True)
class EvalTaskRequest:
    """Issue held-out task ``number`` of a set for the evaluation of ``version``."""

    version: int
    number: int
    set_name: str = MAIN_SET


TaskRequest = TrainTaskRequest | EvalTaskRequest


def group_seed(run_seed: int, group_id: str) -> int:
    """Return the seed for the sampling of one group; 31 bits."""
    digest = hashlib.blake2b(f"{run_seed}/{group_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def make_task(request: TaskRequest, item: TaskItem, config: Config, now_ms: int) -> Task:
    """Make the task for ``request`` with the question of ``item``."""
    settings: RolloutConfig | EvalSet
    match request:
        case TrainTaskRequest(number, min_version):
            split, group_id = "train", f"train-{number:08d}"
            source, settings, spare = config.tasks.source, config.rollout, config.rollout.spare
        case EvalTaskRequest(version, number, set_name):
            split, group_id, min_version = "eval", EvalGroup(version, number, set_name).group_id, version
            settings = config.eval_sets[set_name]
            source, spare = settings.source, 0
    return Task(
        group_id=group_id,
        number=number,
        split=split,
        source=source,
        prompt=item.prompt,
        answer=item.answer,
        samples=settings.samples,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=group_seed(config.run.seed, group_id),
        min_version=min_version,
        issued_at=now_ms,
        metadata=task_metadata(config.tasks, item),
        spare=spare,
    )
