"""An offline training run over selected events: no broker, no explorers, the trainer's own steps.

``<run>/replays/<name>/`` holds ``replay.json``, ``steps.jsonl`` (the metrics of each step), ``weights/`` with the model
that came out, and ``checkpoints/``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consumers.evaluation.generation import HeldOut
from consumers.replay.batches import Batch, Groups, digest, epochs
from consumers.replay.errors import ReplayError
from consumers.replay.reading import ENTITY, Reading
from consumers.replay.selection import Selection
from consumers.trainer.learner import Learner, made_with
from rft.algorithms.compose import takes
from rft.config import Config
from rft.errors import CheckpointError
from rft.log.views import LogView
from rft.training.progress import LogProgress
from rft.training.sample import read_payload
from rft.weights import checkpoint as transport
from schemas.events import ScoredExperience

DUAL_CLIP = 2.0
"""``algorithm.dual_clip`` of a replay that is no repetition and has none set. Offline the policy drifts from the one
that wrote the data, and nothing in the plain clipped loss holds it: a quickstart's 403 batches in order of arrival took
held-out accuracy from 42 % to 16 % without, and to 65 % with 2."""
FOLDER = "replays"
REPORT = "replay.json"
METRICS = "steps.jsonl"

Stage = Callable[[str], Callable[[int, int], None]]
"""Begins a stage of that name and returns what is told of its progress: (done, total)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """How an offline run is made of its events."""

    folder: Path
    """Where it is written; see :func:`replay_folder`."""
    rewards: str = "recorded"
    """Where the rewards come from, for the report."""
    epochs: int = 1
    """Times that all batches are trained."""
    weights: Path | None = None
    """Model folder to start from; ``policy.model`` if not set."""


def replay_folder(run_path: Path, name: str | None) -> Path:
    """Where a replay of that name goes; without a name, the next that is free of ``replay-1``, ``replay-2``, …

    Raises ReplayError when the name is taken.
    """
    root = run_path / FOLDER
    if name is None:
        number = 1
        while (root / f"replay-{number}").exists():
            number += 1
        return root / f"replay-{number}"
    if (root / name).exists():
        raise ReplayError(f"{root / name} exists; choose another --name or remove it")
    return root / name


def train(config: Config, view: LogView, reading: Reading, plan: Plan, stage: Stage) -> dict[str, Any]:
    """Train on what ``reading`` gives and return the content of ``replay.json``.

    Equal selections, start weights and settings give equal weights, on a CPU to the last bit. The run's own steps from
    the first on give the run's own weights; any other selection is trained with ``dual_clip``.

    Args:
        config: of the run that is replayed; ``trainer.steps`` and ``max_staleness`` play no part.

    Raises:
        ReplayError: Nothing is selected that could be trained.
        PolicyError, WeightsError: The model cannot be read or written.
        MissingRangeError, ArchiveError, BrokerError: The log does not hold what is asked.
    """
    started = time.time()
    folder = plan.folder
    own = _own(config, plan, repeats=_repeats(reading.selection, plan))
    held_out = HeldOut(own)
    learner = Learner(own, None)
    groups = Groups(int(config.trainer.buffer_mb * 2**20), learner.wanted)
    reading.progress = stage("reading")
    for picked in reading:
        groups.add(picked)
    processor = config.processor
    batches = groups.batches(
        config.trainer.groups_per_step, min_size=processor.min_group_size, drop_uniform=processor.drop_uniform_groups
    )
    if not batches:
        raise ReplayError(
            f"of {reading.counts.read} events read, {reading.counts.selected} are selected and none can be trained: "
            f"{dict(groups.skipped)}"
        )
    before = held_out.accuracy(Path(own.policy.model), stage("held-out accuracy before"))
    _take_steps(learner, view, batches, plan.epochs, folder, stage("training"))
    weights = learner.engine.serialized()
    final = transport.publish(
        weights.data, learner.companions, folder, model=config.trainer.model_key, version=1,
        step=learner.step, final=True, keep=2, digest=weights.sha256,
    )  # fmt: skip
    after = held_out.accuracy(folder / final.uri, stage("held-out accuracy after"))
    report = {
        "name": folder.name,
        "source": view.name,
        "selection": reading.selection.to_json(),
        "rewards": plan.rewards,
        "events": asdict(reading.counts),
        "skipped": dict(sorted(groups.skipped.items())),
        "trained": sum(len(batch) for batch in batches),
        "batches": len(batches),
        "batches_sha256": digest(batches),
        "epochs": plan.epochs,
        "steps": learner.step,
        "started_from": {"model": str(Path(own.policy.model).absolute()), "sha256": learner.initial_digest},
        "weights": {"folder": str(folder / final.uri), "sha256": final.sha256},
        "accuracy": {"before": before, "after": after, "tasks": next((one.tasks for one in held_out.sets.values()), 0)},
        "made_with": made_with(own),
        "wall_s": round(time.time() - started, 3),
    }
    (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _repeats(selection: Selection, plan: Plan) -> bool:
    """Whether the run's own steps are taken again, on the same events from the same weights."""
    steps = selection.steps
    from_the_first = steps is not None and steps.first <= 1 and selection == Selection(steps=steps)
    return from_the_first and plan == Plan(plan.folder)


def _own(config: Config, plan: Plan, *, repeats: bool) -> Config:
    """The run's configuration in the replay's own folder, starting from its weights."""
    run = config.run.model_copy(update={"folder": plan.folder.parent, "name": plan.folder.name})
    policy = config.policy.model_copy(update={"model": str(plan.weights)}) if plan.weights else config.policy
    algorithm = config.algorithm
    if not repeats and algorithm.dual_clip is None and takes(algorithm, "dual_clip"):
        algorithm = algorithm.model_copy(update={"dual_clip": DUAL_CLIP})
    return config.model_copy(update={"run": run, "policy": policy, "algorithm": algorithm})


def _take_steps(
    learner: Learner,
    view: LogView,
    batches: Sequence[Batch],
    count: int,
    folder: Path,
    told: Callable[[int, int], None],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    total = len(batches) * count
    # Positions in the log are none of an offline run's business, and its weights are no announced version's.
    learner.progress, learner.version_step = LogProgress({}), -1
    with (folder / METRICS).open("w", encoding="utf-8") as file:
        for batch in epochs(batches, count):
            pointers = [sample for sample in batch if sample.payload is None]
            for sample in pointers:
                sample.payload = read_payload(
                    view.fetch(ENTITY, *sample.place).record(ScoredExperience), learner.wanted
                )
            metrics, _ = learner.learn(batch)
            for sample in pointers:
                sample.payload = None
            file.write(json.dumps({"step": learner.step, "digest": learner.digest, **metrics}) + "\n")
            told(learner.step, total)
            if learner.step % learner.config.trainer.checkpoint_interval == 0:
                _checkpoint(learner)


def _checkpoint(learner: Learner) -> None:
    try:
        learner.checkpoint()
    except CheckpointError as error:
        logger.error("%s. Training goes on", error)
