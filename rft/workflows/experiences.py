"""Makes the experiences that are published for a rollout (pure)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from rft.errors import RolloutError
from rft.workflows.rollout import Rollout
from rft.workflows.trajectory import Trajectory
from schemas.events import Experience, Task

ROLLOUT = "rollout"
"""Key of an experience's metadata: what the workflow says of the rollout."""
MAX_ERROR_CHARS = 1000
"""Longest error text in an experience."""


def experience_id(task: Task, sample: int, row: int = 0, rows: int = 1) -> str:
    """Return the id of one row of a rollout. A rollout that is repeated gets the same ids."""
    name = f"{task.group_id}/{sample}"
    return name if rows == 1 else f"{name}/{row}"


def make_experience(
    task: Task,
    sample: int,
    trajectory: Trajectory,
    *,
    source: str,
    model: str,
    now_ms: int,
    duration_ms: int,
    row: int = 0,
    rows: int = 1,
) -> Experience:
    """Return the experience of a rollout that succeeded, or of one of its rows.

    ``source`` and ``now_ms`` must be the same for all rows of one rollout: they tell its tries apart.
    """
    return Experience(
        experience_id=experience_id(task, sample, row, rows),
        group_id=task.group_id,
        number=task.number,
        sample=sample,
        split=task.split,
        group_size=task.rollouts,
        spare=task.spare,
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
        temperature=task.temperature if trajectory.temperature is None else trajectory.temperature,
        top_p=task.top_p if trajectory.top_p is None else trajectory.top_p,
        finish_reason=trajectory.finish_reason,
        duration_ms=duration_ms,
        metadata=task.metadata,
        row=row,
        rows=rows,
    )


def make_experiences(
    task: Task, sample: int, rollout: Rollout, *, source: str, model: str, now_ms: int, duration_ms: int
) -> list[Experience]:
    """Return the experiences of a rollout that succeeded, one a row."""
    outcome, rows = rollout.outcome, len(rollout.rows)
    metadata = task.metadata
    if outcome.metadata:
        metadata = json.dumps({**json.loads(metadata), ROLLOUT: dict(outcome.metadata)})
    stamp: dict[str, Any] = {"source": source, "model": model, "now_ms": now_ms, "duration_ms": duration_ms}
    return [
        replace(
            make_experience(task, sample, trajectory, row=row, rows=rows, **stamp),
            reward=outcome.reward,
            rewards=dict(outcome.rewards),
            turn_rewards=np.array(rollout.turn_rewards(row), np.float32),
            metadata=metadata,
        )
        for row, trajectory in enumerate(rollout.rows)
    ]


def make_failed_experience(
    task: Task, sample: int, error: RolloutError, *, source: str, model: str, now_ms: int, duration_ms: int
) -> Experience:
    """Return the experience of a rollout that failed for good. It has no tokens, and its group does not wait for it."""
    none = np.zeros(0, np.int32)
    nothing = Trajectory(task.prompt, "", none, np.zeros(0, np.uint8), np.zeros(0, np.float32), none, "error")
    made = make_experience(task, sample, nothing, source=source, model=model, now_ms=now_ms, duration_ms=duration_ms)
    return replace(made, error=str(error)[:MAX_ERROR_CHARS])
