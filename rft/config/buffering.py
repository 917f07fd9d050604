"""The trainer's buffer: what is trained first, how often, and in which mixture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rft.config.section import Section

Source = Literal["rollout", "replay", "demonstration", "preference"]
"""Where a group of a batch comes from: its kind, or ``replay``: a group of rollouts that was trained before."""


class BufferConfig(Section):
    mix: dict[Source, float] = {}
    """Shares of each step's groups by source: ``rollout``, ``replay`` (rollouts that were trained before, up to
    ``reuse`` times), ``demonstration``, ``preference``, e.g. ``{ rollout = 0.75, demonstration = 0.25 }``. A step
    waits for rollouts, and for the first demonstrations and preferences, which are gone through again and again; of
    what is to be replayed it takes what there is. Kinds without a share are not trained (cause ``unwanted``). Empty:
    whatever comes, by priority."""
    reuse: int = Field(default=1, ge=1)
    """Times that a group may be trained. Without ``mix`` (in the mode ``train``) these are epochs: what was trained
    least often comes first, each time in an order of its own."""
    priority: str = "processor"
    """Which groups come first: ``processor`` (as the event says, see ``processor.priority``), ``recency`` (newest
    weight version), ``staleness`` (oldest), ``reward_variance``, ``difficulty`` (lowest mean reward), or
    ``package.module:function`` from the group's rewards, oldest weight version and task number to a number."""
    recency_half_life: float | None = Field(default=None, gt=0)
    """Weight versions after which a priority counts half of a new one; none: it does not decay."""

    @model_validator(mode="after")
    def _consistent(self) -> BufferConfig:
        if self.mix and (min(self.mix.values()) < 0 or sum(self.mix.values()) <= 0):
            raise ValueError("mix: shares must not be negative, nor all 0")
        if self.mix.get("replay") and self.reuse < 2:
            raise ValueError("mix.replay needs reuse of 2 or more: that often a group may be trained in all")
        return self

    def shares(self, groups: int) -> dict[str, int]:
        """Groups of a step by source, by largest remainder; empty without ``mix``."""
        total = sum(self.mix.values())
        exact = {name: groups * share / total for name, share in self.mix.items()}
        counts = {name: int(value) for name, value in exact.items()}
        order = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
        for name in order[: groups - sum(counts.values())] if exact else ():
            counts[name] += 1
        return counts  # type: ignore[return-value]

    def uses(self, kind: str) -> int | None:
        """How often a group of that kind may be trained; None: without end."""
        return None if self.mix and kind != "rollout" else self.reuse
