"""Runs a workflow once: with random numbers of its own for each generation, and with a check of what it returns."""

from __future__ import annotations

from rft.policy.base import Policy, Sampling
from rft.workflows.base import Trajectory, Workflow
from rft.workflows.seeded_policy import SeededPolicy
from rft.workflows.trajectory_check import check_trajectory
from schemas.events import Task


async def run_workflow(workflow: Workflow, task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    """Return the trajectory of one sample. Raises RolloutError if it is invalid, and whatever the workflow raises."""
    return check_trajectory(await workflow(task, SeededPolicy(policy, sampling.seed), sampling))
