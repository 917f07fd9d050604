"""A policy of one rollout that keeps what it read and wrote, and the check that rows hold just that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from producers.gateway.contract import Answer
from rft.policy.base import Generation, Policy, Sampling
from rft.workflows.rollout import Rollout
from rft.workflows.running import check_rollout
from rft.workflows.seeded_policy import SeededPolicy


class RecordingPolicy(SeededPolicy):
    def __init__(self, policy: Policy, seed: int = 0) -> None:
        super().__init__(policy, seed)
        self.calls: list[tuple[list[int], Generation]] = []

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        prompt = list(prompt_tokens)
        written = await super().generate(prompt, sampling)
        self.calls.append((prompt, written))
        return written


Call = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens that the policy read and wrote."""


def check_rows(policy: RecordingPolicy, *rollouts: Rollout) -> None:
    """Assert that each call of the policy is one run of written tokens, after exactly what it read."""
    assert sorted(taught_calls(*rollouts)) == sorted(calls_of(policy))


def check_answered(policy: RecordingPolicy, answers: Iterable[Answer], *rollouts: Rollout) -> None:
    """Assert that each answered turn is one run of written tokens, after exactly what the policy read, and that each
    other run is a call of the policy that was not given up."""
    answered = {
        turn.index: (tuple(answer.prompt_token_ids), tuple(turn.tokens.tolist()))
        for answer in answers
        for turn in answer.turns
    }
    taught, calls = Counter(taught_calls(*rollouts)), Counter(calls_of(policy))
    assert Counter(answered.values()) <= taught <= calls


def calls_of(policy: RecordingPolicy) -> list[Call]:
    """Return what the policy has read and written."""
    return [(tuple(prompt), tuple(done.tokens.tolist())) for prompt, done in policy.calls]


def taught_calls(*rollouts: Rollout) -> list[Call]:
    """Return each run of written tokens, with the tokens before it."""
    found = []
    for row in (row for rollout in rollouts for row in check_rollout(rollout).rows):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.action_mask, [0]]).astype(int)))
        for begin, end in edges.reshape(-1, 2):
            found.append((tuple(row.tokens[:begin].tolist()), tuple(row.tokens[begin:end].tolist())))
    return found
