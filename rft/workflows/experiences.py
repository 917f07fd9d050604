"""From a rollout to the Experience that is published (pure)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rft.errors import RolloutError
from rft.workflows.base import Trajectory
from schemas.events import Experience, Task

MAX_ERROR_CHARS = 1000


def experience_id(task: Task, sample: int) -> str:
    """The same rollout done twice has the same id."""
    return f"{task.group_id}/{sample}"


def rolled_out(
    task: Task, sample: int, trajectory: Trajectory, *, source: str, model: str, now_ms: int, duration_ms: int
) -> Experience:
    """What the policy did."""
    return Experience(
        experience_id=experience_id(task, sample),
        group_id=task.group_id,
        number=task.number,
        sample=sample,
        split=task.split,
        group_size=task.samples,
        prompt=trajectory.prompt,
        response=trajectory.response,
        answer=task.answer,
        created_at=now_ms,
        source=source,
        model=model,
        tokens=trajectory.tokens,
        action_mask=trajectory.action_mask,
        logprobs=trajectory.logprobs,
        versions=trajectory.versions,
        temperature=task.temperature,
        top_p=task.top_p,
        finish_reason=trajectory.finish_reason,
        duration_ms=duration_ms,
        metadata=task.metadata,
    )


def failed(
    task: Task, sample: int, error: RolloutError, *, source: str, model: str, now_ms: int, duration_ms: int
) -> Experience:
    """A rollout that failed for good: a member without tokens, so that its group need not wait for it."""
    none = np.zeros(0, np.int32)
    nothing = Trajectory(task.prompt, "", none, np.zeros(0, np.uint8), np.zeros(0, np.float32), none, "error")
    made = rolled_out(task, sample, nothing, source=source, model=model, now_ms=now_ms, duration_ms=duration_ms)
    return replace(made, error=str(error)[:MAX_ERROR_CHARS])
