"""Runs the trainer in tests: in this process, or in its own process that dies at a chosen point."""

from __future__ import annotations

import multiprocessing
import os
import random
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

Kill = tuple[str, str, int]
"""Function, side of the call, number of the call."""

KILL_POINTS: dict[str, Kill] = {
    "before a step is recorded": ("consumers.trainer.announcer:Announcer.record", "before", 2),
    "between a step and its weights": ("rft.weights.folder_transport:FolderTransport._announce", "before", 2),
    "while redoing": ("consumers.trainer.recovery:Redo._redo", "before", 2),
    "after the weights are announced": ("rft.weights.folder_transport:FolderTransport._announce", "after", 2),
    "after the weights' folder is written": (
        "rft.weights.version_folders:VersionFolders.write_when_possible",
        "after",
        2,
    ),
    "within a checkpoint": ("rft.model_files.atomic_folder:_sync_tree", "before", 1),
    "after a checkpoint": ("rft.training.learner:Learner.checkpoint", "after", 1),
}
"""Where a trainer sends itself SIGKILL: function, side of the call, number of the call since its start."""

COLLECTIVE_KILL_POINTS: dict[str, Kill] = {
    "before a step is recorded": KILL_POINTS["before a step is recorded"],
    "between a step and its weights": ("rft.weights.distributor:Distributor.publish", "before", 2),
    "after the weights are announced": ("rft.weights.distributor:Distributor.publish", "after", 2),
}
"""The same with ``weights.transport = "collective"``."""

KILL_FUNCTIONS = {
    "pathlib:Path.write_bytes": (("halfway", "after"), 30),
    "pathlib:Path.rename": (("before", "after"), 8),
    "rft.model_files.atomic_folder:_sync": (("before",), 16),
    "rft.model_files.atomic_folder:_sync_tree": (("before", "after"), 2),
    "consumers.trainer.announcer:Announcer.record": (("before", "after"), 5),
    "rft.weights.version_folders:VersionFolders.write_when_possible": (("before", "after"), 5),
    "rft.weights.folder_transport:FolderTransport._announce": (("before", "after"), 5),
    "rft.training.learner:Learner.learn": (("before", "after"), 5),
    "rft.training.learner:Learner.checkpoint": (("before", "after"), 2),
}
"""Where a run of six steps may be killed: the sides of the call, and the least number of calls. The first four write,
rename and sync the files of weight versions and checkpoints."""
WHILE_REDOING = ("consumers.trainer.recovery:Redo._redo", "rft.training.learner:Learner.learn")


def draw_kills(seed: int, count: int) -> list[list[Kill]]:
    """Draw kills for ``count`` runs, all different, at each function in turn; every fifth run dies again in a redo."""
    chance = random.Random(seed)
    runs: list[list[Kill]] = []
    uses: Counter[str] = Counter()
    while len(runs) < count:
        number = len(runs)
        if number % 5 == 4:
            # Steps 3 and 5 are not in a checkpoint: there is something to redo.
            first = ("consumers.trainer.announcer:Announcer.record", "after", chance.choice((3, 5)))
            run = [first, (chance.choice(WHILE_REDOING), chance.choice(("before", "after")), 1)]
        else:
            where = list(KILL_FUNCTIONS)[(number - number // 5) % len(KILL_FUNCTIONS)]
            sides, calls = KILL_FUNCTIONS[where]
            run = [(where, sides[uses[where] % len(sides)], chance.randint(1, calls))]
        if run not in runs:
            runs.append(run)
            uses[run[-1][0]] += 1
    return runs


def train(config: Config) -> None:
    """Train to the end in this process."""
    from consumers.trainer import run

    run(config, threading.Event())


def settings(folder: Path, name: str, model: Path, **trainer: Any) -> dict[str, Any]:
    """Configure a small run whose steps do not depend on when events arrive: one partition, ordered by number."""
    defaults = {"steps": 12, "groups_per_step": 3, "max_staleness": 100, "checkpoint_interval": 4}
    return {
        "run": {"name": name, "folder": str(folder)},
        "policy": {"model": str(model)},
        "trainer": defaults | {"learning_rate": 1e-2} | trainer,
        "log": {"partitions": 1},
    }


def start_trainer(config: Config, kill: str | Kill | None = None) -> BaseProcess:
    """Start a trainer in its own process, which dies at ``kill``, or at the point of that name in KILL_POINTS."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["consumers.trainer"])
    process = context.Process(target=_train_until_killed, args=(config.model_dump_json(), kill))
    process.start()
    return process


def steps_of(config: Config) -> list[TrainingStep]:
    """Return the entries of the redo log, without the claims that each start makes."""
    return [r for r in read_all(config, "steps") if isinstance(r, TrainingStep) and r.kind != CLAIM]


def versions_of(config: Config) -> list[WeightVersion]:
    return [record for record in read_all(config, "weights") if isinstance(record, WeightVersion)]


def trained_ids(steps: list[TrainingStep]) -> Counter[str]:
    return Counter(ref.experience_id for step in steps for ref in step.trained)


def _train_until_killed(config_json: str, kill: str | Kill | None) -> None:
    if kill:
        _arm(*(KILL_POINTS[kill] if isinstance(kill, str) else kill))
    train(Config.model_validate_json(config_json))


def _arm(where: str, side: str, count: int) -> None:
    import importlib

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
        if calls == count and side != "after":
            if side == "halfway":  # of writing a file
                path, content = args
                original(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, armed)
