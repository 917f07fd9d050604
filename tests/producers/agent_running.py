"""Rolls tasks out with an agent, without a log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from producers.explorer.agent_rollouts import AgentRollouts, find_agent
from producers.explorer.rollouts import roll_out
from producers.gateway.rollout_gateway import RolloutGateway
from rft.config import GatewayConfig, RolloutConfig
from rft.policy.base import Policy
from tests.producers.roles import task

MAX_TOKENS = 4000


def roll(
    policy: Policy,
    *,
    deadline_s: float = 120.0,
    retries: int = 0,
    samples: int = 1,
    mood: str | None = None,
    greedy: bool = False,
    **way: Any,
) -> Any:
    """Roll one task out with the agent that the section ``[rollout]`` names; errors take the place of results."""
    agent = find_agent(RolloutConfig(**way))
    assert agent
    issued = replace(task(0, mood=mood), max_tokens=MAX_TOKENS, temperature=0.0 if greedy else 1.0)

    async def run() -> list[Any]:
        rollouts = AgentRollouts(agent, RolloutGateway(GatewayConfig(), policy, "policy"))
        try:
            work = (
                roll_out(issued, sample, policy, rollouts, deadline_s=deadline_s, retries=retries)
                for sample in range(samples)
            )
            return await asyncio.gather(*work, return_exceptions=True)
        finally:
            rollouts.close()

    done = asyncio.run(run())
    return done if samples > 1 else done[0]
