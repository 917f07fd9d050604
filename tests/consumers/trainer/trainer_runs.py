"""Running the trainer in tests: in this process, or in one of its own that dies at a chosen point."""

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

PLACES = {
    "pathlib:Path.write_bytes": (("halfway", "after"), 30),
    "pathlib:Path.rename": (("before", "after"), 8),
    "rft.weights.folders:_sync": (("before",), 16),
    "rft.weights.folders:_sync_tree": (("before", "after"), 2),
    "consumers.trainer.announcer:Announcer.record": (("before", "after"), 5),
    "consumers.trainer.announcer:Announcer.write_version": (("before", "after"), 5),
    "consumers.trainer.announcer:Announcer.announce": (("before", "after"), 5),
    "consumers.trainer.learner:Learner.learn": (("before", "after"), 5),
    "consumers.trainer.learner:Learner.checkpoint": (("before", "after"), 2),
}
"""Where a run of six steps may be killed: the sides of the call, and how many calls there are at least. Files of weight
versions and of checkpoints are written, renamed and synced by the first four."""
WHILE_REDOING = ("consumers.trainer.recovery:Redo._redo", "consumers.trainer.learner:Learner.learn")

Kill = tuple[str, str, int]
"""Function, side of the call, which call."""


def draw_kills(seed: int, count: int) -> list[list[Kill]]:
    """The kills of ``count`` runs, all different, each place in turn; every fifth run is killed again while redoing."""
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
            where = list(PLACES)[(number - number // 5) % len(PLACES)]
            sides, calls = PLACES[where]
            run = [(where, sides[uses[where] % len(sides)], chance.randint(1, calls))]
        if run not in runs:
            runs.append(run)
            uses[run[-1][0]] += 1
    return runs


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


def start_trainer(config: Config, kill: str | Kill | None = None) -> BaseProcess:
    """A trainer in a process of its own, which dies at the point ``kill``, or at that of KILL_POINTS."""
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
