"""Running the trainer in tests: in this process, or in one of its own that dies at a chosen point."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from synthetic import read_all

from rft.config import Config
from rft.stream.fence import CLAIM
from schemas.events import TrainingStep, WeightVersion

KILL_POINTS = {
    "before a step is recorded": ("consumers.trainer.announcer:Announcer.record", "before", 2),
    "between a step and its weights": ("consumers.trainer.announcer:Announcer.announce", "before", 2),
    "while redoing": ("consumers.trainer.recovery:Redo._redo", "before", 2),
    "after the weights are announced": ("consumers.trainer.announcer:Announcer.announce", "after", 2),
    "after the weights' folder is written": ("consumers.trainer.announcer:Announcer.write_version", "after", 2),
    "within a checkpoint": ("rft.weights.folders:_sync_tree", "before", 1),
    "after a checkpoint": ("consumers.trainer.learner:Learner.checkpoint", "after", 1),
}
"""Function, the side of its call, and which call since its start, at which a trainer sends itself SIGKILL."""


def train(config: Config) -> None:
    """Run to the end in this process."""
    from consumers.trainer import run

    run(config, threading.Event())


def settings(folder: Path, name: str, model: Path, **trainer: Any) -> dict[str, Any]:
    """Sections of a small run whose steps do not depend on when events arrive: one partition, by number."""
    defaults = {"steps": 12, "groups_per_step": 3, "max_staleness": 100, "checkpoint_interval": 4}
    return {
        "run": {"name": name, "folder": str(folder)},
        "policy": {"model": str(model)},
        "trainer": defaults | {"learning_rate": 1e-2} | trainer,
        "log": {"partitions": 1},
    }


def start_trainer(config: Config, kill: str | None = None) -> BaseProcess:
    """A trainer in a process of its own, which dies at the point ``kill``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["consumers.trainer"])
    process = context.Process(target=_train_until_killed, args=(config.model_dump_json(), kill))
    process.start()
    return process


def steps_of(config: Config) -> list[TrainingStep]:
    """Entries of the redo log; not the claims, of which each start makes one."""
    return [r for r in read_all(config, "steps") if isinstance(r, TrainingStep) and r.kind != CLAIM]


def versions_of(config: Config) -> list[WeightVersion]:
    return [record for record in read_all(config, "weights") if isinstance(record, WeightVersion)]


def trained_ids(steps: list[TrainingStep]) -> Counter[str]:
    return Counter(ref.experience_id for step in steps for ref in step.trained)


def _train_until_killed(config_json: str, kill: str | None) -> None:
    if kill:
        _arm(kill)
    train(Config.model_validate_json(config_json))


def _arm(point: str) -> None:
    import importlib

    where, side, count = KILL_POINTS[point]
    module_name, path = where.split(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    calls = 0

    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, armed)
