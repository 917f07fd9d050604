"""``[launcher]``: how many processes `rft run` starts, and how it restarts and stops them."""

from __future__ import annotations

from pydantic import Field

from rft.config.section import Section


class LauncherConfig(Section):
    explorers: int = Field(default=1, ge=1, le=256)
    """Explorer processes to run."""
    processors: int = Field(default=1, ge=1, le=256)
    """Processor processes to run."""
    restart_limit: int = Field(default=5, ge=0)
    """Restarts of one role within ``restart_window_s`` before the run fails."""
    restart_window_s: float = Field(default=300.0, gt=0)
    """See ``restart_limit``."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Wait before the first restart; it doubles each time, to at most 30 s."""
    stop_timeout_s: float = Field(default=30.0, gt=0)
    """How long a role may take to stop after SIGTERM before it is killed."""
    stall_s: float = Field(default=1800.0, ge=0)
    """How long a role may have work and make no progress, before it ends with the stacks of its threads in its log and
    is started again; 0 lets it stand still for good. Waiting is no stall: for the broker, for tasks, for weights, for
    rewards. Make it longer than the longest gradient step, and longer than loading the model."""
