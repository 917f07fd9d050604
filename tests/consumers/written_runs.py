"""Writes a small run to a real log, event by event, as its roles would."""

from __future__ import annotations

import numpy as np

from rft.config import Config
from rft.log.writer import EventWriter
from rft.stream.release import release_id
from schemas.events import EventRef, Experience, ScoredExperience, Task, TrainingStep, WeightVersion

SAMPLES = 3
GROUPS_PER_STEP = 2


def group(number: int) -> str:
    return f"train-{number:08d}"


def experience(number: int, sample: int, version: int) -> Experience:
    """Return an experience of four tokens: two of the prompt, one by the previous version, one by ``version``."""
    return Experience(
        f"{group(number)}/{sample}", group(number), number, sample, "train", SAMPLES, f"prompt {number}",
        f"answer {sample}", "a", 1_700_000_000_000, "explorer-0", "policy",
        tokens=np.array([1, 2, 3, 4], np.int32), action_mask=np.array([0, 0, 1, 1], np.uint8),
        logprobs=np.array([0, 0, -1, -1], np.float32),
        versions=np.array([-1, -1, max(0, version - 1), version], np.int32),
    )  # fmt: skip


def write_run(config: Config, steps: int = 3, foreign: bool = False) -> None:
    """Write tasks, experiences, scores, steps and weights of ``steps`` steps.

    With ``foreign``, the last step is wrong: it names the second event of its batch under the id of the first.
    """
    model = config.trainer.model_key
    with EventWriter(config, "test") as writer:
        writer.send(
            "weights", WeightVersion(model, 0, 0, "checkpoint", "weights/v0", "00", 9, False, 1_700_000_000_000)
        )
        for step in range(1, steps + 1):
            numbers = range((step - 1) * GROUPS_PER_STEP, step * GROUPS_PER_STEP)
            trained = [ref for number in numbers for ref in write_group(writer, number, step - 1)]
            if foreign and step == steps:
                second = trained[1]
                trained[0] = EventRef(second.partition, second.offset, trained[0].experience_id, trained[0].number, 0)
            entry = TrainingStep(
                model, "step", step, step - 1, step, tuple(trained), (), tuple(numbers), f"d{step}", {}, 1
            )
            writer.send("steps", entry)
            weights = WeightVersion(
                model, step, step, "checkpoint", f"weights/v{step}", f"d{step}", 9, step == steps, 1
            )
            writer.send("weights", weights)
            writer.flush()


def write_group(writer: EventWriter, number: int, version: int) -> list[EventRef]:
    """Write one task with its samples from issue to release. Return the samples' positions in ``ready``."""
    name = group(number)
    writer.send("tasks", Task(name, number, "train", "s", f"prompt {number}", "a", SAMPLES, 9, 1.0, 1.0, 0, version, 1))
    samples = [experience(number, sample, version) for sample in range(SAMPLES)]
    origins = [writer.send("experiences", sample).get(10) for sample in samples]
    release = release_id(sample.experience_id for sample in samples)
    refs = []
    for sample, origin in zip(samples, origins, strict=True):
        scored = ScoredExperience(
            sample, origin.partition, origin.offset, "train", None, 0.5, {"exact_match": 0.5}, 0.0, release, SAMPLES, 1
        )
        sent = writer.send("ready", scored).get(10)
        refs.append(EventRef(sent.partition, sent.offset, sample.experience_id, number, 0))
    return refs
