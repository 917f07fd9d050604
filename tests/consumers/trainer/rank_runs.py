"""Runs a trainer of several ranks in its own process, where one of them is killed at a chosen point."""

from __future__ import annotations

import importlib
import os
from multiprocessing.queues import SimpleQueue
from typing import Any

import psutil

from rft.config import Config
from rft.errors import RftError

KILLS = {
    "while a step is computed": ("rft.training.engines.shard:Shard.step", 3),
    "before a step is recorded": ("consumers.trainer.announcer:Announcer.record", 2),
}
"""Function in the trainer's process, and number of its call before which rank 1 gets SIGKILL."""


def train_and_lose_a_rank(config_json: str, kill: str | None, results: SimpleQueue[str | None]) -> None:
    """Train to the end, and put the error that ended it, or None, into ``results``."""
    from trainer_runs import train

    if kill is not None:
        _arm(*KILLS[kill])
    try:
        train(Config.model_validate_json(config_json))
    except RftError as error:
        assert ranks_of(os.getpid()) == []
        results.put(f"{type(error).__name__}: {error}")
    else:
        results.put(None)


def ranks_of(process: int) -> list[psutil.Process]:
    """Return the ranks that a trainer's process has started and that still run."""
    children = psutil.Process(process).children(recursive=True)
    return [child for child in children if any("engines.worker" in word for word in child.cmdline())]


def _arm(where: str, count: int) -> None:
    module, path = where.split(":")
    owner_name, name = path.split(".")
    owner: Any = getattr(importlib.import_module(module), owner_name)
    original, calls = getattr(owner, name), 0

    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            for rank in ranks_of(os.getpid()):
                rank.kill()
        return original(*args, **kwargs)

    setattr(owner, name, armed)
