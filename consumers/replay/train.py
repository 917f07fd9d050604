"""Trains offline on selected events: no broker, no explorers, the same steps as the trainer's.

``<run>/replays/<name>/`` holds ``replay.json``, ``steps.jsonl`` (the metrics of each step), ``weights/`` with the
resulting model, and ``checkpoints/``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from consumers.evaluation import Progress, Stage
from consumers.evaluation.generation import HeldOutEvaluator
from consumers.replay import ReplayError
from consumers.replay.batches import Batch, ReplayGroups, batches_digest, epochs
from consumers.replay.reader import ENTITY, ReplayReader
from consumers.replay.selection import Selection
from rft.algorithms.compose import loss_has_option
from rft.config import Config
from rft.errors import CheckpointError
from rft.log.views import LogView
from rft.training.environment import training_environment
from rft.training.learner import Learner
from rft.training.progress import LogProgress
from rft.training.sample import Sample, SampleFilter, read_payload
from rft.weights.transport import NewVersion
from rft.weights.version_folders import write_version
from schemas.events import ScoredExperience

DUAL_CLIP = 2.0
"""``algorithm.dual_clip`` of a replay that is not a repetition, if the configuration sets none. Offline, the policy
drifts away from the one that wrote the data, and the plain clipped loss does not limit this. Trained on a quickstart's
403 batches in order of arrival, held-out accuracy fell from 42 % to 16 % without dual clip, and rose to 65 % with 2."""
FOLDER = "replays"
REPORT = "replay.json"
METRICS = "steps.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The settings of an offline run."""

    folder: Path
    """The folder to write to; see :func:`replay_folder`."""
    rewards: str = "recorded"
    """The origin of the rewards, for the report."""
    epochs: int = 1
    """How often all batches are trained."""
    weights: Path | None = None
    """Model folder to start from; ``policy.model`` if not set."""


def replay_folder(run_path: Path, name: str | None) -> Path:
    """Return the folder of a replay of that name; without a name, the first free of ``replay-1``, ``replay-2``, …

    Raises ReplayError if the name is taken.
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


def train(config: Config, view: LogView, reader: ReplayReader, plan: ReplayPlan, stage: Stage) -> dict[str, Any]:
    """Train on the events of ``reader``, and return the content of ``replay.json``.

    Equal selections, start weights and settings give equal weights, on a CPU to the last bit. The run's own steps from
    the first on give the run's own weights; any other selection is trained with ``dual_clip``.

    Args:
        config: of the replayed run; ``trainer.steps`` and ``max_staleness`` have no effect.
        view: the log, to fetch again what does not fit into memory.
        reader: the selected events.
        plan: the settings of the offline run.
        stage: shows the progress.

    Raises ReplayError if nothing that can be trained is selected; PolicyError or WeightsError if the model cannot be
    read or written; MissingRangeError, ArchiveError or BrokerError if the log does not hold what is selected.
    """
    started = time.time()
    folder = plan.folder
    own = _replay_config(config, plan, repetition=_is_repetition(reader.selection, plan))
    evaluator = HeldOutEvaluator(own)
    # An offline run has no positions in the log.
    learner = Learner(own, None, LogProgress({}), publishes_versions=False)
    groups = ReplayGroups(int(config.trainer.buffer_mb * 2**20), learner.sample_filter)
    for event in reader.read(stage("reading")):
        groups.add(event)
    processor = config.processor
    batches = groups.batches(
        config.trainer.groups_per_step, min_size=processor.min_group_size, drop_uniform=processor.drop_uniform_groups
    )
    if not batches:
        raise ReplayError(
            f"of {reader.counts.read} events read, {reader.counts.selected} are selected and none can be trained: "
            f"{dict(groups.skipped)}"
        )
    before = evaluator.accuracy(Path(own.policy.model), stage("held-out accuracy before"))
    _train_batches(learner, view, batches, plan.epochs, folder, stage("training"))
    weights = learner.engine.serialized()
    new = NewVersion(config.trainer.model_key, 1, learner.step, weights, final=True)
    final = write_version(new, learner.companions, folder, keep_versions=2)
    after = evaluator.accuracy(folder / final.uri, stage("held-out accuracy after"))
    tasks = next((eval_set.tasks for eval_set in evaluator.sets.values()), 0)
    report = {
        "name": folder.name,
        "source": view.name,
        "selection": reader.selection.to_json(),
        "rewards": plan.rewards,
        "events": asdict(reader.counts),
        "skipped": dict(sorted(groups.skipped.items())),
        "trained": sum(len(batch) for batch in batches),
        "batches": len(batches),
        "batches_sha256": batches_digest(batches),
        "epochs": plan.epochs,
        "steps": learner.step,
        "started_from": {"model": str(Path(own.policy.model).absolute()), "sha256": learner.initial_digest},
        "weights": {"folder": str(folder / final.uri), "sha256": final.sha256},
        "accuracy": {"before": before, "after": after, "tasks": tasks},
        "made_with": training_environment(own),
        "wall_s": round(time.time() - started, 3),
    }
    (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _is_repetition(selection: Selection, plan: ReplayPlan) -> bool:
    """Return whether the replay takes the run's own steps again, on the same events from the same weights."""
    steps = selection.steps
    from_the_first = steps is not None and steps.first <= 1 and selection == Selection(steps=steps)
    return from_the_first and plan == ReplayPlan(plan.folder)


def _replay_config(config: Config, plan: ReplayPlan, *, repetition: bool) -> Config:
    """Return the run's configuration with the replay's folder and start weights."""
    run = config.run.model_copy(update={"folder": plan.folder.parent, "name": plan.folder.name})
    policy = config.policy.model_copy(update={"model": str(plan.weights)}) if plan.weights else config.policy
    algorithm = config.algorithm
    if not repetition and algorithm.dual_clip is None and loss_has_option(algorithm, "dual_clip"):
        algorithm = algorithm.model_copy(update={"dual_clip": DUAL_CLIP})
    return config.model_copy(update={"run": run, "policy": policy, "algorithm": algorithm})


def _train_batches(
    learner: Learner, view: LogView, batches: Sequence[Batch], count: int, folder: Path, progress: Progress
) -> None:
    """Train all batches ``count`` times; write the metrics of each step, and checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    total = len(batches) * count
    with (folder / METRICS).open("w", encoding="utf-8") as file:
        for batch in epochs(batches, count):
            metrics, _ = learner.learn([_with_payload(sample, view, learner.sample_filter) for sample in batch])
            file.write(json.dumps({"step": learner.step, "digest": learner.digest, **metrics}) + "\n")
            progress(learner.step, total)
            if learner.step % learner.config.trainer.checkpoint_interval == 0:
                _checkpoint(learner)


def _with_payload(sample: Sample, view: LogView, sample_filter: SampleFilter) -> Sample:
    """Return the sample with its arrays, fetched from the log if they were not kept."""
    if sample.payload is not None:
        return sample
    event = view.fetch(ENTITY, *sample.position)
    return replace(sample, payload=read_payload(event.record(ScoredExperience), sample_filter))


def _checkpoint(learner: Learner) -> None:
    try:
        learner.checkpoint()
    except CheckpointError as error:
        logger.error("%s. Training goes on", error)
