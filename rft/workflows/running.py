"""Runs a workflow once: with random numbers of its own for each generation, and with a check of what it returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from rft.errors import RolloutError, TokenBudgetError
from rft.policy.base import Policy, Sampling
from rft.workflows.base import ConversationWorkflow, TokenWorkflow, Workflow, takes_conversation
from rft.workflows.conversation import Conversation
from rft.workflows.rollout import Rollout, as_outcome
from rft.workflows.seeded_policy import SeededPolicy
from rft.workflows.trajectory import Trajectory
from rft.workflows.trajectory_check import check_trajectory
from schemas.events import Task
from schemas.turns import turn_starts

MAX_ROWS = 1024


async def run_workflow(workflow: Workflow, task: Task, policy: Policy, sampling: Sampling) -> Rollout:
    """Return what one sample of a task gave. Raises RolloutError if it is invalid, and whatever the workflow raises."""
    seeded = policy if isinstance(policy, SeededPolicy) else SeededPolicy(policy, sampling.seed)
    if takes_conversation(workflow):
        return await _converse(cast(ConversationWorkflow, workflow), Conversation(task, seeded, sampling))
    returned = await cast(TokenWorkflow, workflow)(task, seeded, sampling)
    if isinstance(returned, Rollout):
        return check_rollout(returned)
    return Rollout((check_trajectory(returned),))


def check_rollout(rollout: Rollout) -> Rollout:
    """Return a rollout with its rows and its outcome checked. Raises RolloutError that names what is wrong."""
    rows = tuple(check_trajectory(row) for row in rollout.rows)
    if not rows:
        raise RolloutError("the workflow ended before the policy wrote anything: call generate() at least once")
    if len(rows) > MAX_ROWS:
        raise RolloutError(f"the rollout has {len(rows)} rows, at most {MAX_ROWS} may be")
    outcome, turns = as_outcome(rollout.outcome), rollout.turns_of_rows
    if unknown := sorted(outcome.turn_rewards.keys() - {turn for row in turns for turn in row}):
        raise RolloutError(f"the workflow's turn_rewards name turn {unknown[0]}, which the policy did not write")
    for row, written in zip(rows, turns, strict=True) if outcome.turn_rewards else ():
        runs = turn_starts(row.action_mask).size
        if runs != len(written):
            raise RolloutError(
                f"the workflow's turn_rewards do not fit a row of {len(written)} turns, whose tokens are {runs} runs: "
                "let the policy read something between two turns, or write something in each"
            )
    return Rollout(rows, outcome, turns)


async def _converse(workflow: ConversationWorkflow, conversation: Conversation) -> Rollout:
    returned: Any = None
    try:
        returned = await workflow(conversation.task, conversation)
    except TokenBudgetError:
        # A rollout cut at its limit is one to learn from: its reward functions see how far it came.
        if not conversation.turns:
            raise
        return check_rollout(Rollout(cut(conversation), turns_of_rows=conversation.turns_of_rows()))
    return check_rollout(Rollout(conversation.rows(), as_outcome(returned), conversation.turns_of_rows()))


def cut(conversation: Conversation) -> tuple[Trajectory, ...]:
    """Return the rows of a conversation that ended at its limit."""
    *earlier, last = conversation.rows()
    return (*earlier, replace(last, finish_reason="length"))
