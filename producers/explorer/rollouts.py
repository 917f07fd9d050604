"""Runs one rollout with its deadline and retries; raises the last error when all tries failed."""

from __future__ import annotations

import asyncio
from typing import Any

from rft.errors import EngineDiedError, RequestError, RolloutError, StallError
from rft.plugins import USER_FAILURES, error_text
from rft.policy.base import Policy
from rft.workflows.base import Workflow
from rft.workflows.deadline import StuckRolloutError, run_within
from rft.workflows.rollout import Rollout
from rft.workflows.running import run_workflow
from rft.workflows.seeded_policy import SeededPolicy
from rft.workflows.task_sampling import sampling_of
from schemas.events import Task

MAX_STUCK = 32
"""Workflows that have ignored their cancellation and still run. With more, the explorer ends, and they with it."""

_stuck: set[asyncio.Task[Any]] = set()


async def roll_out(
    task: Task, sample: int, policy: Policy, workflow: Workflow, *, deadline_s: float, retries: int
) -> Rollout:
    """Run the workflow, at most ``1 + retries`` times, each for at most ``deadline_s`` seconds.

    A request that the policy can never serve is not tried again.
    Raises RolloutError with the cause of the last failure, EngineDiedError when nothing can be generated any more, and
    StallError when too many workflows ignore their cancellation. Cancellation passes through.
    """
    error: BaseException | None = None
    for attempt in range(1 + retries):
        sampling = sampling_of(task, sample, attempt)
        own = SeededPolicy(policy, sampling.seed)
        try:
            return await run_within(run_workflow(workflow, task, own, sampling), deadline_s)
        except StuckRolloutError as failure:
            own.revoke()
            _note_stuck(failure)
            error = failure
        except EngineDiedError:
            raise
        except RequestError as failure:
            raise RolloutError(f"cannot work, so it was not tried again: {failure}") from failure
        # A workflow is the user's code: any error fails this try and nothing else.
        except USER_FAILURES as failure:
            error = failure
        # A CancelledError that nobody asked for, KeyboardInterrupt, panics of Rust libraries, outcomes of pytest.
        except BaseException as failure:
            current = asyncio.current_task()
            if isinstance(failure, asyncio.CancelledError) and (current is None or current.cancelling()):
                raise
            error = failure
    words = error_text(error) if error else ""
    cause = (
        f"ran past its deadline of {deadline_s:g} s (rollout.deadline_s)"
        if isinstance(error, TimeoutError) and not words
        else words
        if isinstance(error, StuckRolloutError)
        else f"{type(error).__name__}: {words}"
    )
    raise RolloutError(f"failed {1 + retries} times; the last time it {cause}") from error


def _note_stuck(failure: StuckRolloutError) -> None:
    """Keep count of the workflows that run on. Raises StallError if there are too many."""
    _stuck.add(failure.task)
    failure.task.add_done_callback(_stuck.discard)
    if len(_stuck) > MAX_STUCK:
        raise StallError(f"{len(_stuck)} rollouts run on in this explorer. The last one {failure}") from failure
