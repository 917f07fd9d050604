"""``[rollout]``: how explorers roll a task out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rft.config.section import Section


class RolloutConfig(Section):
    samples: int = Field(default=8, ge=1, le=1024)
    """Group size: rollouts of each task."""
    max_tokens: int = Field(default=64, ge=1)
    """Token limit of one rollout."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Sampling temperature of training rollouts; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with at least this probability."""
    workflow: str = "single_turn"
    """``single_turn`` or ``package.module:function``."""
    deadline_s: float = Field(default=120.0, gt=0)
    """A rollout that takes longer is stopped and tried again."""
    retries: int = Field(default=2, ge=0, le=20)
    """Further tries of a failed rollout. If all fail, it is published as failed and its group continues without it."""
    max_in_flight: int = Field(default=512, ge=1)
    """Number of rollouts that one explorer runs at once."""
    static_membership: bool = False
    """Let an explorer that is back within ``log.session_timeout_ms`` keep its partitions, without a rebalance. Its id
    in the group is its role's name (RFT_ROLE_NAME, which `rft run` sets) and its machine's. Partitions of an explorer
    that is gone for good wait for the session timeout, too."""
    assignment: Literal["cooperative", "eager"] = "cooperative"
    """How partitions change hands when explorers come and go. ``cooperative`` takes only those away that move;
    ``eager`` takes all away from all, as release 0.1 does. All explorers of a group need the same."""
