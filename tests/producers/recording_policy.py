"""A policy of one rollout that keeps what it read and wrote, and the check that rows hold just that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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


def check_rows(policy: RecordingPolicy, *rollouts: Rollout) -> None:
    """Assert that each call of the policy is one run of written tokens, after exactly what it read."""
    expected = sorted((tuple(prompt), tuple(done.tokens.tolist())) for prompt, done in policy.calls)
    found = []
    for row in (row for rollout in rollouts for row in check_rollout(rollout).rows):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.action_mask, [0]]).astype(int)))
        for begin, end in edges.reshape(-1, 2):
            found.append((tuple(row.tokens[:begin].tolist()), tuple(row.tokens[begin:end].tolist())))
    assert sorted(found) == expected
