"""``[gateway]``: how agents reach the policy over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rft.config.section import Name, Section

ADDRESS = r"^[^:\s]+:\d{1,5}$"


class GatewayConfig(Section):
    listen: str = Field(default="127.0.0.1:0", pattern=ADDRESS)
    """Address and port. Port 0 takes a free one. Only agents on this machine reach a loopback address."""
    token_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with a secret. It opens every session, and each session's key is made from it. Without it
    an explorer makes a secret of its own, so that its agents reach their own sessions only, and with ``serve`` the
    roles of a run keep one in ``<run>/gateway/token``."""
    max_requests: int = Field(default=1024, ge=1)
    """Requests that are served at once. Further ones are answered with 429 (`Retry-After`), and clients try again."""
    log_turns: Literal["served", "all", "none"] = "served"
    """Which turns are written to the topic `turns`. ``served``: those of agents that come by themselves, each before
    its answer is sent, so that a conversation outlives the gateway's process. ``all``: also those of agents that
    explorers start, for watching only, because their rollouts are done again."""
    serve: bool = False
    """Let agents come by themselves: `rft run` starts the role `gateway`, and explorers generate for it. See
    docs/agents.md."""
    idle_s: float = Field(default=900.0, gt=0)
    """With ``serve``: a session that nobody has asked anything for so long ends, and its experience is published."""
    max_sessions: int = Field(default=10_000, ge=1)
    """With ``serve``: sessions that may be open at once. More are refused with 429."""
    reward_source: Name = "session"
    """With ``serve``: the source that rewards without a name come from. If ``processor.external`` names it, groups wait
    for these rewards."""
    explorer_listen: str = Field(default="127.0.0.1:0", pattern=ADDRESS)
    """With ``serve``: where each explorer generates for gateways. Beyond this machine, use a private network only: the
    connection is not encrypted."""
    explorer_host: str | None = Field(default=None, min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")
    """The name or address under which gateways on other machines reach this explorer; by default that of
    ``explorer_listen``, or the machine's name if it listens on all addresses."""
    explorer_wait_s: float = Field(default=30.0, gt=0)
    """With ``serve``: how long a request waits for an explorer when there is none. Then it is answered with 503."""
