"""Checks the reward functions: their names and options, and what they give for the tasks' own answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.errors import RewardError
from rft.rewards.async_calls import run_async
from rft.rewards.functions import NAMED, LoadedReward, Sample, load_reward
from rft.tasks.base import TaskItem

TRIED_OWN, TRIED = 4, 64
"""Tasks on which a function of the user's, or a shipped one, is tried: a user's may ask a judge."""
TIME_S = 3.0
"""No further task is tried after that."""
BUGS = (AttributeError, ImportError, IndexError, KeyError, NameError, TypeError)
"""What a function raises that does not fit the tasks, and not because a response is wrong."""


def rewards(facts: Facts) -> Iterator[Finding]:
    """Find functions that do not load, wrong options, and answers that are not rewarded."""
    terms = facts.config.processor.rewards
    loaded = [load_reward(term.function, term.options) for term in terms]
    names = ", ".join(term.function for term in terms) or "none of our own"
    yield Finding("ok", f"rewards {names}")
    if not terms and not facts.config.processor.external.required and facts.config.run.mode != "train":
        yield Finding(
            "warn",
            "processor.rewards is empty and no external reward is required",
            "every reward is 0 unless the workflow or the environment gives one",
        )
    if facts.tasks is None or facts.config.rollout.workflow == "environment":
        return
    weighted = [reward for reward, term in zip(loaded, terms, strict=True) if term.weight > 0]
    for reward in weighted:
        yield from _try(reward, facts.tasks.train)
    if len(weighted) == len(loaded):
        yield from _gold(weighted, facts.tasks.train)


def _try(reward: LoadedReward, items: Sequence[TaskItem]) -> Iterator[Finding]:
    """Score the tasks' own answers, and find a function that fails for them."""
    tried = items[: TRIED if reward.name in NAMED else TRIED_OWN]
    failures: list[RewardError] = []
    started = time.monotonic()
    count = 0
    for item in tried:
        count += 1
        try:
            _call(reward, item, item.answer or "")
        except RewardError as error:
            failures.append(error)
        if time.monotonic() - started > TIME_S:
            break
    if not failures:
        return
    cause = failures[0].__cause__
    certain = len(failures) == count and (reward.name in NAMED or cause is None or isinstance(cause, BUGS))
    yield Finding(
        "fail" if certain else "warn",
        f"{failures[0]} ({len(failures)} of {count} tasks, with their own answers as responses)",
        "each of their rollouts would be filtered as score_failed; change processor.rewards, or the tasks' answers",
    )


def _gold(loaded: Sequence[LoadedReward], items: Sequence[TaskItem]) -> Iterator[Finding]:
    """Find tasks whose own answer earns no more than an empty response."""
    own = any(reward.name not in NAMED for reward in loaded)
    tried = [item for item in items if item.answer][: TRIED_OWN if own else TRIED]
    started, count = time.monotonic(), 0
    worthless: list[TaskItem] = []
    for item in tried:
        try:
            good, nothing = (
                sum(sum(_call(reward, item, response).values()) for reward in loaded)
                for response in (item.answer or "", "")
            )
        except RewardError:
            continue
        count += 1
        if good <= nothing:
            worthless.append(item)
        if time.monotonic() - started > TIME_S:
            break
    if worthless:
        yield Finding(
            "warn",
            f"the answer {(worthless[0].answer or '')[:60]!r} of the task {worthless[0].prompt[:60]!r} earns no more "
            f"than an empty response ({len(worthless)} of {count} tasks)",
            "the model cannot learn from such tasks; change processor.rewards or the answers, unless a right response "
            "has another form than the answer",
        )


def _call(reward: LoadedReward, item: TaskItem, response: str) -> dict[str, float]:
    sample = Sample(response, item.answer, item.prompt, item.metadata, max(1, len(response) // 4))
    return run_async(reward.call_async(sample)) if reward.is_async else reward.call(sample)
