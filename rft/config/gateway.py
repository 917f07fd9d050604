"""``[gateway]``: how agents reach the policy over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rft.config.section import Section


class GatewayConfig(Section):
    listen: str = Field(default="127.0.0.1:0", pattern=r"^[^:\s]+:\d{1,5}$")
    """Address and port. Port 0 takes a free one. Only agents on this machine reach a loopback address."""
    token_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with a secret. It opens every session, and each session's key is made from it. Without it
    an explorer makes a secret of its own, so that its agents reach their own sessions only."""
    max_requests: int = Field(default=1024, ge=1)
    """Requests that are served at once. Further ones are answered with 429 (`Retry-After`), and clients try again."""
    log_turns: Literal["served", "all", "none"] = "served"
    """Which turns are written to the topic `turns`. ``served``: those of agents that come by themselves, each before
    its answer is sent, so that a conversation outlives the gateway's process. ``all``: also those of agents that
    explorers start, for watching only, because their rollouts are done again."""
